"""Privacy events: the releases of a run, with the parameters that determine their privacy cost.

The cost of an event depends on adjacency. Adding or removing an image moves a sum by at most one
clipping norm; replacing an image moves it by the difference of two contributions.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Annotated, Any, ClassVar, get_type_hints

import dp_accounting
from dp_accounting import pld
from pydantic import Field, TypeAdapter, ValidationError

from dpbench.core.strict import STRICT, violations
from dpbench.privacy.budget import Adjacency

_RELATIONS = {
    "add_remove": dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
    "replace_one": dp_accounting.NeighboringRelation.REPLACE_ONE,
}
Loss = Any  # dp-accounting's PrivacyLossDistribution; the library has no type hints

# The ranges of an event's parameters; the certificate and its JSON schema follow them.
NoiseMultiplier = Annotated[
    float, Field(ge=0, description="Scale of the noise over the sensitivity of the release.")
]
ClippingNorm = Annotated[
    float, Field(gt=0, description="Bound on the Euclidean norm of one image's contribution.")
]
SampleRate = Annotated[
    float, Field(gt=0, le=1, description="Probability with which an image is in a batch.")
]
Steps = Annotated[int, Field(ge=1, description="Number of releases.")]
Purpose = Annotated[str, Field(min_length=1, description="Name of the release, unique in a run.")]


class _Checked:
    """Checks an event's parameters on construction, so that no invalid event is accounted for."""

    def __post_init__(self) -> None:
        for name, adapter in _parameters(type(self)).items():  # type: ignore[arg-type]
            try:
                adapter.validate_python(getattr(self, name))
            except ValidationError as error:
                raise ValueError(next(violations(error, name))) from None


@cache
def _parameters(kind: type) -> dict[str, TypeAdapter[Any]]:
    hints = get_type_hints(kind, include_extras=True)
    return {each.name: TypeAdapter(hints[each.name], config=STRICT) for each in fields(kind)}


class _OneGaussian(_Checked):
    """One release with Gaussian noise.

    Attributes:
        replaced: Sensitivity under replace-one, in units of that under add/remove.
    """

    steps: ClassVar[int] = 1
    replaced: ClassVar[float]

    noise_multiplier: NoiseMultiplier

    def equivalent(self, adjacency: Adjacency) -> dp_accounting.GaussianDpEvent:
        """A dp-accounting event whose add/remove cost is this event's under ``adjacency``."""
        sensitivity = self.replaced if adjacency == "replace_one" else 1
        return dp_accounting.GaussianDpEvent(self.noise_multiplier / sensitivity)

    def loss(self, adjacency: Adjacency, interval: float) -> Loss:
        """The privacy loss, rounded up to a grid of ``interval``."""
        return pld.privacy_loss_distribution.from_gaussian_mechanism(
            self.equivalent(adjacency).noise_multiplier, value_discretization_interval=interval
        )


@dataclass(frozen=True)
class GaussianEvent(_OneGaussian):
    """One release of a sum over the whole private set, with Gaussian noise.

    Replacing an image moves the sum by up to twice the clipping norm.

    Attributes:
        noise_multiplier: Standard deviation of the noise over the clipping norm.
        clipping_norm: C, above 0: bound on the Euclidean norm of one image's contribution.
        purpose: Name of the release, unique in a run.

    Raises:
        ValueError: A parameter is of the wrong type or out of its range.
    """

    replaced: ClassVar[float] = 2

    noise_multiplier: NoiseMultiplier
    clipping_norm: ClippingNorm
    purpose: Purpose

    @property
    def sensitivity(self) -> float:
        """Largest Euclidean change of a release by adding or removing an image: C."""
        return self.clipping_norm


@dataclass(frozen=True)
class HistogramEvent(_OneGaussian):
    """One release of the number of images in each class, with Gaussian noise on every count.

    An image contributes a one-hot vector, of norm 1. Replacing it moves one count down and another
    up: ``|e_i - e_j| = sqrt(2)``, less than the 2 of vectors that may be opposite. The Gaussian
    mechanism depends on that norm alone (Balle and Wang 2018, arXiv 1805.06530, theorem 8).

    Attributes:
        noise_multiplier: Standard deviation of the noise, in images.
        purpose: Name of the release, unique in a run.

    Raises:
        ValueError: A parameter is of the wrong type or out of its range.
    """

    replaced: ClassVar[float] = math.sqrt(2)

    noise_multiplier: NoiseMultiplier
    purpose: Purpose

    @property
    def sensitivity(self) -> float:
        """Largest change of the release by adding or removing an image: one count by 1."""
        return 1.0


@dataclass(frozen=True)
class SelectionEvent(_Checked):
    """The choice of one candidate by its score: the exponential mechanism.

    A score is a sum over images of numbers in [0, 1]; candidate j is chosen with probability
    proportional to ``exp(score_j / noise_multiplier)`` (McSherry and Talwar 2007).

    Attributes:
        noise_multiplier: Scale of the Gumbel noise; one image adds at most 1 to a score.
        purpose: Name of the choice, unique in a run.

    Raises:
        ValueError: A parameter is of the wrong type or out of its range.
    """

    steps: ClassVar[int] = 1

    noise_multiplier: NoiseMultiplier
    purpose: Purpose

    @property
    def sensitivity(self) -> float:
        """Largest change of any one score by adding or removing an image: 1."""
        return 1.0

    def pure_epsilon(self, adjacency: Adjacency) -> float:
        """Epsilon of the choice at delta = 0.

        Adding an image raises every score by 0 to 1; with such monotonic scores the exponential
        mechanism costs 1 / noise_multiplier. Replacing an image may raise one score and lower
        another, which costs twice that (Dwork and Roth 2014, theorem 3.10 and the remark after it).
        """
        return (2 if adjacency == "replace_one" else 1) / self.noise_multiplier

    def equivalent(self, adjacency: Adjacency) -> dp_accounting.DpEvent | None:
        """The choice as zCDP: rho = epsilon^2 / 2 (Bun and Steinke 2016, proposition 1.4)."""
        return dp_accounting.ZCDpEvent(rho=self.pure_epsilon(adjacency) ** 2 / 2)

    def loss(self, adjacency: Adjacency, interval: float) -> Loss:
        """The privacy loss, rounded up to a grid of ``interval``.

        Randomised response dominates every mechanism of the same epsilon (Kairouz, Oh and
        Viswanath 2015, arXiv 1311.0776).
        """
        guarantee = pld.common.DifferentialPrivacyParameters(self.pure_epsilon(adjacency), 0)
        return pld.privacy_loss_distribution.from_privacy_parameters(guarantee, interval)


@dataclass(frozen=True)
class DPSGDEvent(_Checked):
    """Releases of noisy gradient sums over Poisson samples (Abadi et al. 2016, algorithm 1).

    Attributes:
        sample_rate: Probability q with which each example is in each batch, independently.
        noise_multiplier: Standard deviation of the noise over the clipping norm.
        clipping_norm: C, above 0: bound on the Euclidean norm of one image's gradient in the sum.
        steps: Number of releases.
        purpose: Name of the training, unique in a run.

    Raises:
        ValueError: A parameter is of the wrong type or out of its range.
    """

    sample_rate: SampleRate
    noise_multiplier: NoiseMultiplier
    clipping_norm: ClippingNorm
    steps: Steps
    purpose: Purpose

    @property
    def sensitivity(self) -> float:
        """Largest Euclidean change of a release by adding or removing an image: C."""
        return self.clipping_norm

    def equivalent(self, adjacency: Adjacency) -> dp_accounting.DpEvent | None:
        """One release as a dp-accounting event under add/remove; None under replace-one."""
        if adjacency == "replace_one":
            return None
        noise = dp_accounting.GaussianDpEvent(self.noise_multiplier)
        return dp_accounting.PoissonSampledDpEvent(self.sample_rate, noise)

    def loss(self, adjacency: Adjacency, interval: float) -> Loss:
        """The privacy loss of all releases, rounded up to a grid of ``interval``.

        Under replace-one the replaced image is in the batch with probability q on both sides, and
        the two gradients may be opposite. So one step compares the mixture of ``N(0)`` with
        probability 1 - q and ``N(C)`` with probability q to the same mixture of ``N(0)`` and
        ``N(-C)`` (dp-accounting's REPLACE_ONE).
        """
        once = pld.privacy_loss_distribution.from_gaussian_mechanism(
            self.noise_multiplier,
            value_discretization_interval=interval,
            sampling_prob=self.sample_rate,
            neighboring_relation=_RELATIONS[adjacency],
        )
        return once.self_compose(self.steps)


Event = GaussianEvent | HistogramEvent | SelectionEvent | DPSGDEvent
EVENT_TYPES: dict[str, type[Event]] = {
    "gaussian": GaussianEvent,
    "label_histogram": HistogramEvent,
    "selection": SelectionEvent,
    "dp_sgd": DPSGDEvent,
}


def event_to_json(event: Event) -> dict[str, Any]:
    """The event as a JSON object: ``mechanism`` and its parameters."""
    names = {kind: name for name, kind in EVENT_TYPES.items()}
    return {"mechanism": names[type(event)], **asdict(event)}


def event_from_json(data: dict[str, Any]) -> Event:
    """The inverse of ``event_to_json``.

    Raises:
        KeyError, TypeError, ValueError: Not an event of this version.
    """
    parameters = dict(data)
    return EVENT_TYPES[parameters.pop("mechanism")](**parameters)
