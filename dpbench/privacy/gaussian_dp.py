"""Gaussian differential privacy of a composition (Dong, Roth and Su 2022, arXiv 1905.02383).

A pair (epsilon, delta) is one point of a curve. Mu tells the curve: neighbouring sets are at least
as hard to tell apart as draws from ``N(0, 1)`` and ``N(mu, 1)``, so that a release is
``(epsilon', delta_of(mu, epsilon'))``-private for every epsilon'.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from dpbench.privacy.budget import Adjacency
from dpbench.privacy.epsilon import composition
from dpbench.privacy.events import DPSGDEvent, Event, SelectionEvent

Direction = Literal[
    "exact: a composition of Gaussian releases without sampling",
    "upper bound: dominates the PLD of epsilon from 0 to up_to_epsilon, and nothing is said beyond",
]
EXACT, UPPER_BOUND = get_args(Direction)
# Number of epsilons at which curves are compared; mu is too large by about 0.1% for their distance.
POINTS = 4001


@dataclass(frozen=True)
class GaussianDP:
    """The smallest mu of which a composition is mu-Gaussian-DP, for a range of epsilon.

    Attributes:
        mu: Distance of two unit normals that are at most as hard to tell apart.
        up_to_epsilon: The bound holds for each epsilon from 0 to this; ``inf`` for all.
        direction: Whether mu is exact, or on which side it errs.
    """

    mu: float
    up_to_epsilon: float
    direction: str


def delta_of(mu: float, epsilons: ArrayLike) -> NDArray[np.float64]:
    """Delta of a mu-Gaussian-DP mechanism at each epsilon (Dong et al. 2022, corollary 2.13)."""
    eps = np.asarray(epsilons, float)
    # the second term is the exponential of a sum, since e^epsilon alone overflows
    lost = np.exp(eps + norm.logcdf(-eps / mu - mu / 2))
    delta: NDArray[np.float64] = np.maximum(norm.cdf(-eps / mu + mu / 2) - lost, 0.0)
    return delta


def gaussian_dp(events: Iterable[Event], adjacency: Adjacency, up_to_epsilon: float) -> GaussianDP:
    """The tightest mu for the adaptive composition of events.

    Gaussian releases without sampling compose exactly, to the root of the sum of their squares. For
    everything else the mu is the smallest whose curve of delta over epsilon lies above that of the
    PLD, from 0 to ``up_to_epsilon``. The range is needed: the privacy loss of subsampled releases
    has a heavier tail than that of a normal, so the mu that holds for every epsilon is that without
    sampling, which says nothing.

    Args:
        events: The events, with finite epsilon.
        adjacency: Which data sets are neighbours.
        up_to_epsilon: End of the range: the epsilon that is claimed.
    """
    return _gaussian_dp(tuple(events), adjacency, up_to_epsilon)


@lru_cache(maxsize=256)
def _gaussian_dp(
    events: tuple[Event, ...], adjacency: Adjacency, up_to_epsilon: float
) -> GaussianDP:
    distances = [_distance(event, adjacency) for event in events]
    if None not in distances:
        return GaussianDP(math.hypot(*filter(None, distances)), math.inf, EXACT)
    loss = composition(up_to_epsilon, events, adjacency)
    epsilons = np.linspace(0.0, up_to_epsilon, POINTS)
    # both curves fall, so between two epsilons the PLD's is at most its value at the first, and
    # Gaussian DP's at least its value at the second
    # no delta above 1, which rounding may give and no mu dominates
    deltas = np.minimum(loss.get_delta_for_epsilon(epsilons), 1.0)[:-1]
    return GaussianDP(_smallest(deltas, epsilons[1:]), up_to_epsilon, UPPER_BOUND)


def _distance(event: Event, adjacency: Adjacency) -> float | None:
    """Mu of all releases of an event; None unless it is Gaussian and samples no batches."""
    if isinstance(event, SelectionEvent):
        return None
    if not isinstance(event, DPSGDEvent):
        return 1 / float(event.equivalent(adjacency).noise_multiplier)
    if event.sample_rate < 1:
        return None
    # replacing an image may turn its gradient round
    change = 2 if adjacency == "replace_one" else 1
    return change * math.sqrt(event.steps) / event.noise_multiplier


def _smallest(deltas: NDArray[np.float64], epsilons: NDArray[np.float64]) -> float:
    """The smallest mu with at least these deltas, from above, to nine digits."""

    def dominates(mu: float) -> bool:
        return bool((delta_of(mu, epsilons) >= deltas).all())

    high = 1e-6
    while not dominates(high):
        high *= 2
    low = high / 2
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if dominates(middle) else (middle, high)
    return high
