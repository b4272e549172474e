"""From privacy events to epsilon, and from epsilon to a noise multiplier.

Every epsilon of the project is computed here, by the privacy loss distributions (PLD) of Google's
dp-accounting (Doroshenko et al. 2022, arXiv 2207.04380), which are pessimistic: the true epsilon is
never above the stated one.

What an event costs depends on adjacency. Adding or removing an image moves a sum by at most one
clipping norm; replacing one moves it by the difference of two contributions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from importlib.metadata import version
from typing import Any, ClassVar, TypeVar

import dp_accounting
from dp_accounting import pld
from scipy.optimize import brentq
from scipy.stats import norm

from dpbench.core.errors import UserError
from dpbench.privacy.budget import Adjacency, PrivacyBudget

ACCOUNTANT = f"dp-accounting {version('dp-accounting')} PLD"
# The largest noise multiplier worth searching: beyond it gradients are noise and nothing else.
MAX_NOISE_MULTIPLIER = 1e5
MIN_NOISE_MULTIPLIER = 0.1
_RELATIONS = {
    "add_remove": dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
    "replace_one": dp_accounting.NeighboringRelation.REPLACE_ONE,
}
Loss = Any  # dp-accounting has no types: its PrivacyLossDistribution

_RANGES: dict[str, tuple[str, Callable[[float], bool]]] = {
    "noise_multiplier": ("be at least 0 and finite", lambda x: 0 <= x < math.inf),
    "clipping_norm": ("be above 0 and finite", lambda x: 0 < x < math.inf),
    "sample_rate": ("lie in (0, 1]", lambda x: 0 < x <= 1),
    "steps": ("be at least 1", lambda x: x >= 1),
}


class _Checked:
    """Parameters are checked when an event is made: there is none with a wrong epsilon."""

    def __post_init__(self) -> None:
        for name, (must, fits) in _RANGES.items():
            value = getattr(self, name, None)
            if value is not None and not fits(value):
                raise ValueError(f"{name} must {must}, got {value}")


class _OneGaussian(_Checked):
    """One release with Gaussian noise.

    Attributes:
        replaced: Most that replacing an image moves the release, in units of what adding one does.
    """

    steps: ClassVar[int] = 1
    replaced: ClassVar[float]

    noise_multiplier: float

    def equivalent(self, adjacency: Adjacency) -> dp_accounting.GaussianDpEvent:
        """The release as an event of dp-accounting that costs the same under add/remove."""
        sensitivity = self.replaced if adjacency == "replace_one" else 1
        return dp_accounting.GaussianDpEvent(self.noise_multiplier / sensitivity)

    def loss(self, adjacency: Adjacency, width: float) -> Loss:
        """The privacy loss, counted in cells of width ``width``."""
        return pld.privacy_loss_distribution.from_gaussian_mechanism(
            self.equivalent(adjacency).noise_multiplier, value_discretization_interval=width
        )


@dataclass(frozen=True)
class GaussianEvent(_OneGaussian):
    """One release of a sum with Gaussian noise, over the whole private set.

    Replacing an image moves the sum by up to twice the clipping norm.

    Attributes:
        noise_multiplier: Standard deviation of the noise over the clipping norm.
        clipping_norm: C, above 0: the largest Euclidean norm of what one image adds to the sum.
        purpose: What was released, for people.

    Raises:
        ValueError: A parameter is out of its range.
    """

    replaced: ClassVar[float] = 2

    noise_multiplier: float
    clipping_norm: float
    purpose: str

    @property
    def sensitivity(self) -> float:
        """Most that one image more or less moves a release: C."""
        return self.clipping_norm


@dataclass(frozen=True)
class HistogramEvent(_OneGaussian):
    """One release of the number of images in each class, with Gaussian noise on every count.

    An image is a one-hot vector, of norm 1. Replacing it moves one count down and another up:
    ``|e_i - e_j| = sqrt(2)``, less than the 2 of vectors that may be opposite. That norm is all
    that the Gaussian mechanism asks for (Balle and Wang 2018, arXiv 1805.06530, theorem 8).

    Attributes:
        noise_multiplier: Standard deviation of the noise, in images.
        purpose: What was released, for people.

    Raises:
        ValueError: A parameter is out of its range.
    """

    replaced: ClassVar[float] = math.sqrt(2)

    noise_multiplier: float
    purpose: str

    @property
    def sensitivity(self) -> float:
        """Most that one image more or less moves a release: one count by 1."""
        return 1.0


@dataclass(frozen=True)
class SelectionEvent(_Checked):
    """The choice of one candidate by its score: the exponential mechanism.

    A score is a sum over images of numbers in [0, 1]; candidate j is chosen with probability
    proportional to ``exp(score_j / noise_multiplier)`` (McSherry and Talwar 2007).

    Attributes:
        noise_multiplier: Scale of the Gumbel noise, over the most that one image adds to a score.
        purpose: What was chosen, for people.

    Raises:
        ValueError: A parameter is out of its range.
    """

    steps: ClassVar[int] = 1

    noise_multiplier: float
    purpose: str

    def pure_epsilon(self, adjacency: Adjacency) -> float:
        """Epsilon of the choice; its delta is 0.

        One image more moves every score up, by 0 to 1: of such monotonic scores the exponential
        mechanism costs 1 / noise_multiplier. Replacing an image may move one score up and another
        down, which costs twice that (Dwork and Roth 2014, theorem 3.10 and the remark after it).
        """
        return (2 if adjacency == "replace_one" else 1) / self.noise_multiplier

    def equivalent(self, adjacency: Adjacency) -> dp_accounting.DpEvent | None:
        """As concentrated DP: rho = epsilon^2 / 2 (Bun and Steinke 2016, proposition 1.4)."""
        return dp_accounting.ZCDpEvent(rho=self.pure_epsilon(adjacency) ** 2 / 2)

    def loss(self, adjacency: Adjacency, width: float) -> Loss:
        """The privacy loss, counted in cells of width ``width``.

        No mechanism of that epsilon loses more than randomised response (Kairouz, Oh and
        Viswanath 2015, arXiv 1311.0776).
        """
        guarantee = pld.common.DifferentialPrivacyParameters(self.pure_epsilon(adjacency), 0)
        return pld.privacy_loss_distribution.from_privacy_parameters(guarantee, width)


@dataclass(frozen=True)
class DPSGDEvent(_Checked):
    """Releases of noisy gradient sums over Poisson samples (Abadi et al. 2016, algorithm 1).

    Attributes:
        sample_rate: Probability q with which each example is in each batch, independently.
        noise_multiplier: Standard deviation of the noise over the clipping norm.
        clipping_norm: C, above 0: the largest Euclidean norm of one image's gradient in the sum.
        steps: Number of releases.
        purpose: What was released, for people.

    Raises:
        ValueError: A parameter is out of its range.
    """

    sample_rate: float
    noise_multiplier: float
    clipping_norm: float
    steps: int
    purpose: str

    @property
    def sensitivity(self) -> float:
        """Most that one image more or less moves a release: C."""
        return self.clipping_norm

    def equivalent(self, adjacency: Adjacency) -> dp_accounting.DpEvent | None:
        """One release as an event of dp-accounting under add/remove; None for replace-one."""
        if adjacency == "replace_one":
            return None
        noise = dp_accounting.GaussianDpEvent(self.noise_multiplier)
        return dp_accounting.PoissonSampledDpEvent(self.sample_rate, noise)

    def loss(self, adjacency: Adjacency, width: float) -> Loss:
        """The privacy loss of all releases, counted in cells of width ``width``.

        Under replace-one the image's place is in the batch with probability q whatever image is
        in it, and the two gradients may be opposite, so that one step is ``N(0)`` with probability
        1 - q, else ``N(C)``, against ``N(0)``, else ``N(-C)`` (dp-accounting's REPLACE_ONE).
        """
        once = pld.privacy_loss_distribution.from_gaussian_mechanism(
            self.noise_multiplier,
            value_discretization_interval=width,
            sampling_prob=self.sample_rate,
            neighboring_relation=_RELATIONS[adjacency],
        )
        return once.self_compose(self.steps)


Event = GaussianEvent | HistogramEvent | SelectionEvent | DPSGDEvent
_EVENT_TYPES: dict[str, type[Event]] = {
    "gaussian": GaussianEvent,
    "label_histogram": HistogramEvent,
    "selection": SelectionEvent,
    "dp_sgd": DPSGDEvent,
}
_AnyEvent = TypeVar("_AnyEvent", bound=Event)


def event_to_json(event: Event) -> dict[str, Any]:
    """The event as a JSON object: ``mechanism`` and its parameters."""
    names = {kind: name for name, kind in _EVENT_TYPES.items()}
    return {"mechanism": names[type(event)], **asdict(event)}


def event_from_json(data: dict[str, Any]) -> Event:
    """The inverse of ``event_to_json``.

    Raises:
        KeyError, TypeError, ValueError: Not an event of this version.
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
    if noiseless(events):
        return math.inf  # not worth the accountant's hour
    before, result = math.inf, 10.0
    while result < 0.9 * before:  # the cells were chosen for an epsilon well above the true one
        before = result
        result = _epsilon_near(before, events, delta, adjacency)
    return result


def noiseless(events: Iterable[Event]) -> bool:
    """Whether an event has so little noise that no accountant is asked about it."""
    return any(event.noise_multiplier < MIN_NOISE_MULTIPLIER for event in events)


def _epsilon_near(
    target: float, events: Iterable[Event], delta: float, adjacency: Adjacency
) -> float:
    """PLD epsilon, counted in cells that suit an epsilon near ``target``.

    Coarser cells are faster and more pessimistic, never optimistic.
    """
    events = tuple(events)
    width = _width_for(target, events, adjacency)
    total = pld.privacy_loss_distribution.identity(value_discretization_interval=width)
    for event in events:
        total = total.compose(event.loss(adjacency, width))
    return float(total.get_epsilon_for_delta(delta))


def _width_for(target: float, events: tuple[Event, ...], adjacency: Adjacency) -> float:
    """The PLD cell width at which an epsilon near ``target`` is right to about 0.01%.

    Counting T losses in cells of width h makes epsilon too large by about ``h^2 T / epsilon``
    (measured for T from 1 to 15000), so h follows from the error that is allowed. The loss of a
    selection has two values, which are rounded up to whole cells: that is an error of h, unless
    they are whole numbers of cells already.
    """
    releases = sum(event.steps for event in events)
    width = min(max(target * math.sqrt(1e-4 / max(releases, 1)), 1e-6), 0.1)
    selections = [e.pure_epsilon(adjacency) for e in events if isinstance(e, SelectionEvent)]
    if len(set(selections)) == 1:  # cut into a power of two, which is exact in floating point
        width = selections[0] / 2 ** max(0, math.ceil(math.log2(selections[0] / width)))
    elif selections:
        width = min(width, 3e-4 * target / len(selections))
    return max(width, 1e-6)


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
        sigma, as ``calibrated`` finds it.

    Raises:
        UserError: No noise multiplier up to 1e5 is enough.
    """
    # epsilon does not depend on the clipping norm
    event = DPSGDEvent(sample_rate, 1.0, 1.0, steps, "calibration")
    return _smallest_noise(event, budget, others)


def calibrated(
    event: _AnyEvent, budget: PrivacyBudget, others: tuple[Event, ...] = ()
) -> _AnyEvent:
    """An event with the smallest noise multiplier with which it stays within the budget.

    A budget is split by calibrating some events to a part of it, and the last to what is left:

        >>> budget = PrivacyBudget(1.0)
        >>> counts = calibrated(HistogramEvent(1.0, "class sizes"), PrivacyBudget(0.1))
        >>> training = calibrated(DPSGDEvent(0.01, 1.0, 1.0, 100, "weights"), budget, (counts,))
        >>> 0.999 < epsilon([counts, training], budget.delta) <= 1
        True

    Args:
        event: Its noise multiplier is ignored.
        budget: What may be spent.
        others: Events of the same run that the budget must also pay for.

    Returns:
        The event with sigma such that ``epsilon`` is at most ``budget.epsilon`` and within about
        0.1% of it; sigma is never below 0.1, and 0 where the budget has no limit.

    Raises:
        UserError: No noise multiplier up to 1e5 is enough.
    """
    return replace(event, noise_multiplier=_smallest_noise(event, budget, others))


@lru_cache(maxsize=256)
def _smallest_noise(event: Event, budget: PrivacyBudget, others: tuple[Event, ...]) -> float:
    if not budget.private:
        return 0.0

    def events_at(log_sigma: float) -> tuple[Event, ...]:
        return (*others, replace(event, noise_multiplier=math.exp(log_sigma)))

    @cache
    def excess(log_sigma: float) -> float:
        spent = _epsilon_near(budget.epsilon, events_at(log_sigma), budget.delta, budget.adjacency)
        # logarithms of both, because epsilon is close to a power of sigma
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
    # the search may stop on the wrong side of the root by its tolerance
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

    Gaussian DP (Bu et al. 2020, arXiv 1911.11607) is optimistic, so it only starts the search and
    never states an epsilon.
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
