"""The certificate: a privacy claim with everything that is needed to check it, as JSON."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dpbench.core.canonical import to_json
from dpbench.core.strict import STRICT, OrInfinity, document, violations
from dpbench.privacy.budget import Adjacency
from dpbench.privacy.crosschecks import cross_checks
from dpbench.privacy.events import EVENT_TYPES, Event, event_from_json
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


class Certificate(BaseModel):
    """A run's privacy claim and all that is needed to recompute it: ``privacy`` of a record."""

    model_config = ConfigDict(**STRICT, title="dpbench privacy certificate")

    certificate_version: Version
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


def certify(ledger: PrivacyLedger, reproducible: bool, code: dict[str, Any]) -> dict[str, Any]:
    """Make the certificate of a run that has made all its releases; takes a few seconds.

    Args:
        ledger: The run's ledger.
        reproducible: Whether the noise derives from the published seed.
        code: The code that made the releases: ``package`` (name and version) and ``git_revision``
            (None where the package is installed).

    Returns:
        The content of a ``Certificate``.

    Raises:
        RunFailed: Some releases that were accounted for were not made.
    """
    claim = ledger.certificate(reproducible)
    budget = ledger.budget
    return {
        **claim,
        "cross_checks": cross_checks(ledger.events, budget.delta, budget.adjacency),
        "code": code,
    }


def certificate_violations(certificate: dict[str, Any]) -> list[str]:
    """Every part that is not as ``Certificate`` says, one line each, with its place."""
    try:
        Certificate.model_validate_json(json.dumps(to_json(certificate)))
    except ValidationError as error:
        return list(violations(error, "privacy"))
    return []


def is_old(certificate: dict[str, Any]) -> bool:
    """Whether it is of the first version, without clipping norms, cross-checks and code."""
    return "certificate_version" not in certificate


def events_of(certificate: dict[str, Any]) -> tuple[Event, ...]:
    """The events, in order.

    Raises:
        KeyError, TypeError, ValueError: They are not events.
    """
    # the first version did not write clipping norms down; epsilon does not depend on them
    missing = {"clipping_norm": 1.0} if is_old(certificate) else {}
    return tuple(
        event_from_json({**missing, **{k: v for k, v in event.items() if k != "released"}})
        for event in certificate["events"]
    )
