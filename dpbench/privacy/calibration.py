"""Calibration: the smallest noise multiplier that stays within a privacy budget."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache, lru_cache
from typing import TypeVar

from scipy.optimize import brentq
from scipy.stats import norm

from dpbench.core.errors import UserError
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.epsilon import MIN_NOISE_MULTIPLIER, epsilon, epsilon_near
from dpbench.privacy.events import DPSGDEvent, Event, SelectionEvent

# Largest noise multiplier of the search; with more, gradients are nothing but noise.
MAX_NOISE_MULTIPLIER = 1e5


_AnyEvent = TypeVar("_AnyEvent", bound=Event)


def calibrate(
    budget: PrivacyBudget, sample_rate: float, steps: int, others: tuple[Event, ...] = ()
) -> float:
    """The smallest noise multiplier with which DP-SGD stays within the budget.

    Args:
        budget: Privacy budget of the run.
        sample_rate: Poisson sampling probability q, in (0, 1].
        steps: Number of steps T, at least 1.
        others: Events of the same run that the budget must also pay for.

    Returns:
        sigma, found as by ``calibrated``.

    Raises:
        UserError: The batch is larger than the set, or no noise multiplier up to 1e5 is enough.
    """
    if sample_rate > 1:
        raise UserError(
            f"a batch cannot have {sample_rate:.4g} times as many images as the set: take a "
            "smaller --set batch_size"
        )
    # epsilon does not depend on the clipping norm
    event = DPSGDEvent(sample_rate, 1.0, 1.0, steps, "calibration")
    return smallest_noise_multiplier(event, budget, others)


def calibrated(
    event: _AnyEvent, budget: PrivacyBudget, others: tuple[Event, ...] = ()
) -> _AnyEvent:
    """The event with the smallest noise multiplier that stays within the budget.

    To split a budget, calibrate some events to a part of it and the last one to what is left:

        >>> from dpbench.privacy.events import HistogramEvent
        >>> budget = PrivacyBudget(1.0)
        >>> counts = calibrated(HistogramEvent(1.0, "class sizes"), PrivacyBudget(0.1))
        >>> training = calibrated(DPSGDEvent(0.01, 1.0, 1.0, 100, "weights"), budget, (counts,))
        >>> 0.999 < epsilon([counts, training], budget.delta) <= 1
        True

    Args:
        event: The event; its noise multiplier is ignored.
        budget: Privacy budget of the run.
        others: Events of the same run that the budget must also pay for.

    Returns:
        The event with sigma such that ``epsilon`` is at most ``budget.epsilon`` and within about
        0.1% of it. Sigma is at least 0.1, or 0 if the budget's epsilon is infinite.

    Raises:
        UserError: No noise multiplier up to 1e5 is enough.
    """
    return replace(event, noise_multiplier=smallest_noise_multiplier(event, budget, others))


@lru_cache(maxsize=256)
def smallest_noise_multiplier(
    event: Event, budget: PrivacyBudget, others: tuple[Event, ...]
) -> float:
    """Sigma of ``calibrated``; cached, because methods ask for the same one repeatedly."""
    if not budget.private:
        return 0.0

    def events_at(log_sigma: float) -> tuple[Event, ...]:
        return (*others, replace(event, noise_multiplier=math.exp(log_sigma)))

    @cache
    def excess(log_sigma: float) -> float:
        spent = epsilon_near(budget.epsilon, events_at(log_sigma), budget.delta, budget.adjacency)
        # both in logarithms, because epsilon is close to a power of sigma
        return math.log(max(spent, 1e-12) / budget.epsilon)

    smallest, largest = math.log(MIN_NOISE_MULTIPLIER), math.log(MAX_NOISE_MULTIPLIER)
    low = high = min(max(math.log(_first_guess(event, budget)), smallest), largest)
    stride = 0.05
    while excess(high) > 0:
        if high >= largest:
            raise UserError(
                f"epsilon = {budget.epsilon:g} (delta = {budget.delta:g}) is too small for "
                f"{_described(event, others)}: take fewer steps, a smaller batch or a larger "
                "epsilon"
            )
        low, high, stride = high, min(high + stride, largest), 2 * stride
    while low > smallest and excess(low) <= 0:
        low, high, stride = max(low - stride, smallest), low, 2 * stride
    log_sigma = low if excess(low) <= 0 else float(brentq(excess, low, high, xtol=1e-5))
    # within its tolerance the search may stop on the wrong side of the root
    while epsilon(events_at(log_sigma), budget.delta, budget.adjacency) > budget.epsilon:
        log_sigma += 1e-4
    return math.exp(log_sigma)


def _described(event: Event, others: tuple[Event, ...]) -> str:
    text = "one release"
    if isinstance(event, DPSGDEvent):
        text = f"{event.steps} steps at sample rate {event.sample_rate:.3g}"
    return text + f" beside {len(others)} other events" * bool(others)


def _first_guess(event: Event, budget: PrivacyBudget) -> float:
    """A noise multiplier near the answer for DP-SGD, by the central limit theorem.

    Gaussian DP (Bu et al. 2020, arXiv 1911.11607) is optimistic, so it only starts the search; no
    epsilon is stated by it.
    """

    def excess(log_mu: float) -> float:
        mu, eps = math.exp(log_mu), budget.epsilon
        tail = float(norm.logcdf(-eps / mu - mu / 2)) + eps
        delta = float(norm.cdf(-eps / mu + mu / 2)) - math.exp(min(tail, 0.0))
        return delta - budget.delta

    low, high = math.log(1e-9), math.log(1e4)
    if isinstance(event, SelectionEvent) or excess(low) > 0 or excess(high) < 0:
        return 1.0
    mu = math.exp(float(brentq(excess, low, high, xtol=1e-3)))
    rate = event.sample_rate if isinstance(event, DPSGDEvent) else 1.0
    return 1 / math.sqrt(math.log1p((mu / rate) ** 2 / event.steps))
