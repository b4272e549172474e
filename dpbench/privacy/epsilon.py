"""Epsilon of a composition of privacy events.

Every epsilon that the project claims is computed here, with the privacy loss distributions (PLD) of
Google's dp-accounting (Doroshenko et al. 2022, arXiv 2207.04380). They are pessimistic: the true
epsilon is never above the stated one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import version

from dp_accounting import pld

from dpbench.privacy.budget import Adjacency
from dpbench.privacy.events import DPSGDEvent, Event, Loss, SelectionEvent

ACCOUNTANT = f"dp-accounting {version('dp-accounting')} PLD"
# Below this noise multiplier epsilon is taken to be infinite.
MIN_NOISE_MULTIPLIER = 0.1
# Losses that reach far, on a grid that suits a small epsilon, would have more points than time and
# memory: the grid is then made coarser, to about so many points for one release and for all.
MOST_POINTS_OF_ONE, MOST_POINTS = 2**14, 2**22


def epsilon(events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove") -> float:
    """Epsilon of the adaptive composition of ``events``, by PLD.

    Args:
        events: The events; their order does not matter.
        delta: In (0, 1).
        adjacency: Which data sets are neighbours.

    Returns:
        An upper bound, within about 0.1% of the tightest that PLD gives; ``inf`` if an event has a
        noise multiplier below 0.1.

    Example:
        >>> from dpbench.privacy.events import DPSGDEvent
        >>> event = DPSGDEvent(4096 / 60000, 6.983, 1.0, 732, "weights")
        >>> round(epsilon([event], 1e-5), 2)
        1.0
    """
    return _epsilon(tuple(events), delta, adjacency)


# a run asks for the same composition when it spends, certifies and cross-checks
@lru_cache(maxsize=1024)
def _epsilon(events: tuple[Event, ...], delta: float, adjacency: Adjacency) -> float:
    if noiseless(events):
        return math.inf  # PLD would take an hour
    before, result = math.inf, 10.0
    while 0 < result < 0.9 * before:  # the grid was chosen for an epsilon well above the true one
        before = result
        result = epsilon_near(before, events, delta, adjacency)
    return result


def noiseless(events: Iterable[Event]) -> bool:
    """Whether an event has a noise multiplier below ``MIN_NOISE_MULTIPLIER``."""
    return any(event.noise_multiplier < MIN_NOISE_MULTIPLIER for event in events)


def epsilon_near(
    target: float, events: Iterable[Event], delta: float, adjacency: Adjacency
) -> float:
    """Epsilon by PLD, on a grid that suits an epsilon near ``target``.

    A coarser grid is faster and more pessimistic, never optimistic.
    """
    return float(composition(target, tuple(events), adjacency).get_epsilon_for_delta(delta))


def composition(target: float, events: tuple[Event, ...], adjacency: Adjacency) -> Loss:
    """The PLD of all events, on a grid that suits an epsilon near ``target``."""
    interval = _interval_for(target, events, adjacency)
    total = pld.privacy_loss_distribution.identity(value_discretization_interval=interval)
    for event in events:
        total = total.compose(event.loss(adjacency, interval))
    return total


def _interval_for(target: float, events: tuple[Event, ...], adjacency: Adjacency) -> float:
    """The PLD grid interval at which an epsilon near ``target`` is right to about 0.01%.

    Rounding T losses up to a grid of interval h makes epsilon too large by about
    ``h^2 T / epsilon`` (measured for T from 1 to 15000), so h follows from the error that is
    allowed. The loss of a selection has two values; rounding them up is an error of h, unless both
    are multiples of h.
    """
    releases = sum(event.steps for event in events)
    interval = min(max(target * math.sqrt(1e-4 / max(releases, 1)), 1e-6), 0.1)
    selections = [e.pure_epsilon(adjacency) for e in events if isinstance(e, SelectionEvent)]
    if len(set(selections)) == 1:  # division by a power of two is exact in floating point
        interval = selections[0] / 2 ** max(0, math.ceil(math.log2(selections[0] / interval)))
    elif selections:
        interval = min(interval, 3e-4 * target / len(selections))
    return max(interval, 1e-6, *map(_coarsest_for, events))


def _coarsest_for(event: Event) -> float:
    """The interval at which an event's losses have about the most points that are allowed.

    The loss of one Gaussian release is ``1 / (2 sigma^2)`` with a standard deviation of
    ``1 / sigma``; of T subsampled ones about ``q T`` count. A wrong guess costs time or tightness,
    and never makes epsilon too small.
    """
    if isinstance(event, SelectionEvent):
        return 0.0
    sigma = event.noise_multiplier
    rate = event.sample_rate if isinstance(event, DPSGDEvent) else 1.0
    reach = math.log1p(rate * math.expm1(1 / (2 * sigma**2) + 10 / sigma))
    taken = event.steps * rate
    most = min(event.steps, taken + 10 * math.sqrt(taken) + 10)
    # with more noise the sum of many losses is about normal, and shorter than their reaches
    total = most * reach if sigma < 0.5 else 0.0
    return max(reach / MOST_POINTS_OF_ONE, total / MOST_POINTS)
