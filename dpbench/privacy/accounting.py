"""From privacy events to epsilon, and from epsilon to a noise multiplier.

Every epsilon of the project is computed here, by the privacy loss distributions (PLD) of Google's
dp-accounting (Doroshenko et al. 2022, arXiv 2207.04380), which are pessimistic: the true epsilon is
never above the stated one. Renyi DP (looser) is there as a cross-check.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from importlib.metadata import version
from typing import Any

import dp_accounting
from dp_accounting import pld, rdp
from scipy.optimize import brentq
from scipy.stats import norm

from dpbench.errors import UserError
from dpbench.privacy.budget import Adjacency, PrivacyBudget

ACCOUNTANT = f"dp-accounting {version('dp-accounting')} PLD"
# The largest noise multiplier worth searching: beyond it gradients are noise and nothing else.
MAX_NOISE_MULTIPLIER = 1e5
MIN_NOISE_MULTIPLIER = 0.1
_RELATIONS = {
    "add_remove": dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
    "replace_one": dp_accounting.NeighboringRelation.REPLACE_ONE,
}


@dataclass(frozen=True)
class GaussianEvent:
    """One release of a sum with Gaussian noise, over the whole private set.

    Attributes:
        noise_multiplier: Standard deviation of the noise over the clipping norm.
        clipping_norm: C, above 0: the largest Euclidean norm of what one image adds to the sum.
        purpose: What was released, for people.
    """

    noise_multiplier: float
    clipping_norm: float
    purpose: str

    @property
    def steps(self) -> int:
        """Number of releases."""
        return 1

    def after(self, steps: int) -> dp_accounting.DpEvent:
        """The event as dp-accounting knows it, after ``steps`` releases."""
        return dp_accounting.SelfComposedDpEvent(
            dp_accounting.GaussianDpEvent(self.noise_multiplier), steps
        )


@dataclass(frozen=True)
class DPSGDEvent:
    """Releases of noisy gradient sums over Poisson samples (Abadi et al. 2016, algorithm 1).

    Attributes:
        sample_rate: Probability q with which each example is in each batch, independently.
        noise_multiplier: Standard deviation of the noise over the clipping norm.
        clipping_norm: C, above 0: the largest Euclidean norm of one image's gradient in the sum.
        steps: Number of releases.
        purpose: What was released, for people.
    """

    sample_rate: float
    noise_multiplier: float
    clipping_norm: float
    steps: int
    purpose: str

    def after(self, steps: int) -> dp_accounting.DpEvent:
        """The event as dp-accounting knows it, after ``steps`` releases."""
        return dp_accounting.SelfComposedDpEvent(
            dp_accounting.PoissonSampledDpEvent(
                self.sample_rate, dp_accounting.GaussianDpEvent(self.noise_multiplier)
            ),
            steps,
        )


Event = GaussianEvent | DPSGDEvent
_EVENT_TYPES: dict[str, type[GaussianEvent] | type[DPSGDEvent]] = {
    "gaussian": GaussianEvent,
    "dp_sgd": DPSGDEvent,
}


def event_to_json(event: Event) -> dict[str, Any]:
    """The event as a JSON object: ``mechanism`` and its parameters."""
    names = {kind: name for name, kind in _EVENT_TYPES.items()}
    return {"mechanism": names[type(event)], **asdict(event)}


def event_from_json(data: dict[str, Any]) -> Event:
    """The inverse of ``event_to_json``.

    Raises:
        KeyError, TypeError: Not an event of this version.
    """
    parameters = dict(data)
    return _EVENT_TYPES[parameters.pop("mechanism")](**parameters)


def epsilon(events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove") -> float:
    """Epsilon of the composition of ``events``, by PLD: a function of its arguments alone.

    Args:
        events: In any order (the composition is adaptive).
        delta: In (0, 1).
        adjacency: Which data sets are neighbours.

    Returns:
        An upper bound, within about 0.1% of the tightest that PLD gives; ``inf`` for noise
        multipliers below 0.1.

    Example:
        >>> event = DPSGDEvent(4096 / 60000, 6.983, 1.0, 732, "weights")
        >>> round(epsilon([event], 1e-5), 2)
        1.0
    """
    events = tuple(events)
    if any(0 <= event.noise_multiplier < MIN_NOISE_MULTIPLIER for event in events):
        return math.inf  # not worth the accountant's hour
    before, result = math.inf, 10.0
    while result < 0.9 * before:  # the cells were chosen for an epsilon well above the true one
        before = result
        result = _epsilon_at(events, delta, adjacency, _resolution_for(before, events))
    return result


def epsilon_rdp(events: Iterable[Event], delta: float) -> float:
    """Epsilon under add/remove adjacency by Renyi DP (Mironov et al. 2019): a cross-check."""
    accountant = rdp.RdpAccountant()
    for event in events:
        accountant.compose(event.after(event.steps))
    return float(accountant.get_epsilon(delta))


def _epsilon_at(
    events: Iterable[Event], delta: float, adjacency: Adjacency, resolution: float
) -> float:
    """PLD epsilon with the privacy loss counted in cells of width ``resolution``.

    Coarser cells are faster and more pessimistic, never optimistic.
    """
    accountant = pld.PLDAccountant(_RELATIONS[adjacency], value_discretization_interval=resolution)
    for event in events:
        accountant.compose(event.after(event.steps))
    return float(accountant.get_epsilon(delta))


def _resolution_for(target: float, events: Iterable[Event]) -> float:
    """The PLD cell width at which an epsilon near ``target`` is right to about 0.01%.

    Counting T losses in cells of width h makes epsilon too large by about ``h^2 T / epsilon``
    (measured for T from 1 to 15000), so h follows from the error that is allowed.
    """
    releases = sum(event.steps for event in events)
    return min(max(target * math.sqrt(1e-4 / max(releases, 1)), 1e-6), 0.1)


@lru_cache(maxsize=256)
def calibrate(
    budget: PrivacyBudget, sample_rate: float, steps: int, others: tuple[Event, ...] = ()
) -> float:
    """The smallest noise multiplier with which DP-SGD stays within the budget.

    Args:
        budget: What may be spent.
        sample_rate: Poisson sampling probability q, in (0, 1].
        steps: Number of steps T, at least 1.
        others: Events of the same run that the budget must also pay for.

    Returns:
        sigma, such that ``epsilon`` is at most ``budget.epsilon`` and within about 0.1% of it;
        never below 0.1, and 0 where the budget has no limit.

    Raises:
        UserError: No noise multiplier up to 1e5 is enough.
    """
    if not budget.private:
        return 0.0

    def events_at(log_sigma: float) -> tuple[Event, ...]:
        # epsilon does not depend on the clipping norm
        return (*others, DPSGDEvent(sample_rate, math.exp(log_sigma), 1.0, steps, "calibration"))

    resolution = _resolution_for(budget.epsilon, events_at(0.0))

    @cache
    def excess(log_sigma: float) -> float:
        spent = _epsilon_at(events_at(log_sigma), budget.delta, budget.adjacency, resolution)
        # logarithms of both, because epsilon is close to a power of sigma
        return math.log(max(spent, 1e-12) / budget.epsilon)

    smallest, largest = math.log(MIN_NOISE_MULTIPLIER), math.log(MAX_NOISE_MULTIPLIER)
    low = high = min(max(math.log(_first_guess(budget, sample_rate, steps)), smallest), largest)
    stride = 0.05
    while excess(high) > 0:
        if high >= largest:
            raise UserError(
                f"epsilon = {budget.epsilon:g} (delta = {budget.delta:g}) is too small for "
                f"{steps} steps at sample rate {sample_rate:.3g}: take fewer steps, a smaller "
                "batch or a larger epsilon"
            )
        low, high, stride = high, min(high + stride, largest), 2 * stride
    while low > smallest and excess(low) <= 0:
        low, high, stride = max(low - stride, smallest), low, 2 * stride
    log_sigma = low if excess(low) <= 0 else float(brentq(excess, low, high, xtol=1e-5))
    # the search may stop on the wrong side of the root by its tolerance
    while epsilon(events_at(log_sigma), budget.delta, budget.adjacency) > budget.epsilon:
        log_sigma += 1e-4
    return math.exp(log_sigma)


def _first_guess(budget: PrivacyBudget, sample_rate: float, steps: int) -> float:
    """A noise multiplier near the answer, by the central limit theorem.

    Gaussian DP (Bu et al. 2020, arXiv 1911.11607) is optimistic, so it only starts the search and
    never states an epsilon.
    """

    def excess(log_mu: float) -> float:
        mu, eps = math.exp(log_mu), budget.epsilon
        tail = float(norm.logcdf(-eps / mu - mu / 2)) + eps
        delta = float(norm.cdf(-eps / mu + mu / 2)) - math.exp(min(tail, 0.0))
        return delta - budget.delta

    low, high = math.log(1e-9), math.log(1e4)
    if excess(low) > 0 or excess(high) < 0:
        return 1.0
    mu = math.exp(float(brentq(excess, low, high, xtol=1e-3)))
    return 1 / math.sqrt(math.log1p((mu / sample_rate) ** 2 / steps))
