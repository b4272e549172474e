"""Broken accountants and calibrations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from scipy.optimize import brentq
from scipy.stats import norm

from dpbench.privacy.budget import Adjacency, PrivacyBudget
from dpbench.privacy.calibration import calibrate, calibrated
from dpbench.privacy.crosschecks import epsilon_rdp
from dpbench.privacy.epsilon import epsilon
from dpbench.privacy.events import DPSGDEvent, Event, GaussianEvent
from dpbench.privacy.gaussian_dp import UPPER_BOUND, GaussianDP


def gaussian_dp(
    events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove"
) -> float:
    """By the central limit theorem (Bu et al. 2020): optimistic."""
    mu = _limit(events)

    def excess(eps: float) -> float:
        tail = math.exp(eps + float(norm.logcdf(-eps / mu - mu / 2)))
        return float(norm.cdf(-eps / mu + mu / 2)) - tail - delta

    return float(brentq(excess, 0, 200))


def _limit(events: Iterable[Event]) -> float:
    total = 0.0
    for event in events:
        rate = event.sample_rate if isinstance(event, DPSGDEvent) else 1.0
        total += rate**2 * event.steps * math.expm1(event.noise_multiplier**-2)
    return math.sqrt(total)


def mu_by_the_limit_theorem(
    events: Iterable[Event], adjacency: Adjacency, up_to_epsilon: float
) -> GaussianDP:
    """The mu that ``gaussian_dp`` of this module takes: optimistic."""
    return GaussianDP(_limit(events), up_to_epsilon, UPPER_BOUND)


def forgets_steps(
    events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove"
) -> float:
    once = [replace(e, steps=1) if isinstance(e, DPSGDEvent) else e for e in events]
    return epsilon(once, delta, adjacency)


def takes_the_rate_of_a_loader(
    events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove"
) -> float:
    """1 / len(loader) in place of batch / N, as Opacus' make_private does."""
    rounded = [
        replace(e, sample_rate=1 / math.ceil(1 / e.sample_rate)) if isinstance(e, DPSGDEvent) else e
        for e in events
    ]
    return epsilon(rounded, delta, adjacency)


def ignores_adjacency(
    events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove"
) -> float:
    return epsilon(events, delta)


def forgets_the_sampling(
    events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove"
) -> float:
    return epsilon(
        [replace(e, sample_rate=1.0) if isinstance(e, DPSGDEvent) else e for e in events],
        delta,
        adjacency,
    )


def classical_gaussian(
    events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove"
) -> float:
    (event,) = events
    assert isinstance(event, GaussianEvent)
    return math.sqrt(2 * math.log(1.25 / delta)) / event.noise_multiplier


def rdp_of_half_the_rate(events: Iterable[Event], delta: float) -> float:
    halved = [
        replace(e, sample_rate=e.sample_rate / 2) for e in events if isinstance(e, DPSGDEvent)
    ]
    return epsilon_rdp(halved, delta)


def calibrates_too_low(
    budget: PrivacyBudget, sample_rate: float, steps: int, others: tuple[Event, ...] = ()
) -> float:
    return 0.999 * calibrate(budget, sample_rate, steps, others)


def calibrates_without_the_others(
    budget: PrivacyBudget, sample_rate: float, steps: int, others: tuple[Event, ...] = ()
) -> float:
    return calibrate(budget, sample_rate, steps)


def half_price(events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove") -> float:
    return epsilon(events, delta, adjacency) / 2


def doubles_for_replacing(
    events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove"
) -> float:
    """As if the difference of two one-hot vectors had norm 2."""
    sums = [GaussianEvent(event.noise_multiplier, 1.0, event.purpose) for event in events]
    return epsilon(sums, delta, adjacency)


def triples_for_replacing(
    events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove"
) -> float:
    factor = 3 if adjacency == "replace_one" else 1
    less = [replace(e, noise_multiplier=e.noise_multiplier / factor) for e in events]
    return epsilon(less, delta)


def selects_like_gaussian_noise(
    events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove"
) -> float:
    sums = [GaussianEvent(event.noise_multiplier, 1.0, event.purpose) for event in events]
    return epsilon(sums, delta, adjacency)


def dearest_only(
    events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove"
) -> float:
    return max(epsilon([event], delta, adjacency) for event in events)


def adds_up_twice(
    events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove"
) -> float:
    events = tuple(events)
    return len(events) * sum(epsilon([event], delta, adjacency) for event in events)


def forgets_the_last(
    events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove"
) -> float:
    first, *others = events
    return epsilon([first, *others[:-1]], delta, adjacency)


def trains_as_if_alone(split: Callable[..., tuple[Event, ...]]) -> Callable[..., tuple[Event, ...]]:
    """Gives training the whole budget, whatever else is spent."""

    def altered(budget: PrivacyBudget, *how: Any) -> tuple[Event, ...]:
        *side, training = split(budget, *how)
        return (*side, calibrated(training, budget))

    return altered
