"""The certificate: a privacy claim with everything that is needed to check it, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dpbench.core.canonical import to_json
from dpbench.core.strict import STRICT, OrInfinity, document, violations
from dpbench.privacy.budget import Adjacency, neighbours
from dpbench.privacy.crosschecks import cross_checks
from dpbench.privacy.events import EVENT_TYPES, Event, event_from_json
from dpbench.privacy.gaussian_dp import Direction, gaussian_dp
from dpbench.privacy.ledger import PrivacyLedger, Release, Unit, Version

_Text = Annotated[str, Field(min_length=1)]
_Count = Annotated[
    int, Field(ge=0, description="Releases that were made, counted one by one before each.")
]
_SPENT = tuple(
    document(name, kind, mechanism=(Literal[name], ...), released=(_Count, ...))
    for name, kind in EVENT_TYPES.items()
)
# mypy knows no unions that are computed
_SpentEvent = Annotated[Union[_SPENT], Field(discriminator="mechanism")]  # type: ignore[valid-type]  # noqa: UP007


class CrossCheck(BaseModel):
    """What another accountant says of the same events: an epsilon, or a reason for none."""

    model_config = STRICT

    accountant: _Text
    epsilon: OrInfinity | None
    reason: str


class Code(BaseModel):
    """The code that made the releases."""

    model_config = STRICT

    package: _Text
    git_revision: str | None = Field(
        description='Of the source tree, with "+" if it was changed; null if installed.'
    )


class GaussianDPBound(BaseModel):
    """Mu-Gaussian-DP: one number for the whole curve of epsilon and delta."""

    model_config = STRICT

    mu: float = Field(
        ge=0,
        description="Neighbouring sets are at least as hard to tell apart as N(0, 1) and N(mu, 1).",
    )
    up_to_epsilon: OrInfinity = Field(description="The bound holds for epsilons from 0 to this.")
    direction: Direction = Field(description="Whether mu is exact, or on which side it errs.")


class Tuning(BaseModel):
    """Where the hyper-parameters come from.

    Those that are not named have the method's defaults, or published values that were asked for.
    """

    model_config = STRICT

    preset: _Text = Field(
        description="The preset's source: a paper, or what its values were chosen on."
    )
    from_preset: list[_Text] = Field(description="Hyper-parameters whose values are the preset's.")
    by_hand: list[_Text] = Field(
        description="Hyper-parameters that were set for this run; on what is not known."
    )
    accounted: Literal[False] = Field(description="Whether epsilon covers the choice.")


class _Claim(BaseModel):
    """What certificates of all versions state."""

    epsilon: OrInfinity = Field(
        description='Upper bound for the composition of all events; "inf" if not private.'
    )
    delta: float = Field(gt=0, lt=1)
    adjacency: Adjacency = Field(description="Which data sets are neighbours.")
    unit: Unit = Field(description="What is protected.")
    accountant: _Text = Field(description="Library that computed epsilon, with its version.")
    events: list[_SpentEvent] = Field(
        description="Everything that was spent, in the order of spending."
    )
    release: Release = Field(description="Whether the samples may be released under this claim.")
    not_covered: list[_Text] = Field(min_length=1, description="What the claim does not cover.")
    cross_checks: list[CrossCheck]
    code: Code


class EarlierCertificate(_Claim):
    """A certificate of version 2, as records of schema version 1 have."""

    model_config = STRICT

    certificate_version: Literal[2]


class Certificate(_Claim):
    """A run's privacy claim and all that is needed to recompute it: ``privacy`` of a record."""

    model_config = ConfigDict(**STRICT, title="dpbench privacy certificate")

    certificate_version: Version
    declared_size: int = Field(ge=1, description="Number of images N, which is public.")
    neighbours: _Text = Field(description="What the adjacency means, in words.")
    gaussian_dp: GaussianDPBound | None = Field(
        description="The tightest Gaussian-DP bound of the same events; null if not private."
    )
    tuning: Tuning


def certify(
    ledger: PrivacyLedger,
    reproducible: bool,
    code: dict[str, Any],
    declared_size: int,
    tuning: Tuning,
) -> dict[str, Any]:
    """Make the certificate of a run that has made all its releases; takes a few seconds.

    Args:
        ledger: The run's ledger.
        reproducible: Whether the noise derives from the published seed.
        code: The code that made the releases: ``package`` (name and version) and ``git_revision``
            (None where the package is installed).
        declared_size: Declared number of images N.
        tuning: Where the hyper-parameters come from.

    Returns:
        The content of a ``Certificate``.

    Raises:
        RunFailed: Some releases that were accounted for were not made.
    """
    claim = ledger.certificate(reproducible)
    budget = ledger.budget
    bound = None
    if budget.private:
        bound = asdict(gaussian_dp(ledger.events, budget.adjacency, claim["epsilon"]))
    return {
        **claim,
        "declared_size": declared_size,
        "neighbours": neighbours(budget.adjacency, declared_size),
        "gaussian_dp": bound,
        "tuning": tuning.model_dump(),
        "cross_checks": cross_checks(ledger.events, budget.delta, budget.adjacency),
        "code": code,
    }


def certificate_violations(certificate: dict[str, Any]) -> list[str]:
    """Every part that is not as the model of its version says, one line each, with its place."""
    model = EarlierCertificate if is_earlier(certificate) else Certificate
    try:
        model.model_validate_json(json.dumps(to_json(certificate)))
    except ValidationError as error:
        return list(violations(error, "privacy"))
    return []


def is_earlier(certificate: dict[str, Any]) -> bool:
    """Whether it is of version 2, without Gaussian-DP bound, public size and tuning."""
    return certificate.get("certificate_version") == 2


def events_of(certificate: dict[str, Any]) -> tuple[Event, ...]:
    """The events, in order.

    Raises:
        KeyError, TypeError, ValueError: They are not events.
    """
    return tuple(
        event_from_json({name: value for name, value in event.items() if name != "released"})
        for event in certificate["events"]
    )
