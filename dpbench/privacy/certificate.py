"""The certificate: a privacy claim with everything that is needed to check it, as JSON."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator

from dpbench.privacy.crosschecks import cross_checks
from dpbench.privacy.events import Event, event_from_json
from dpbench.privacy.ledger import PrivacyLedger


def certify(ledger: PrivacyLedger, reproducible: bool, code: dict[str, Any]) -> dict[str, Any]:
    """The certificate of a run that has made all its releases; takes a few seconds.

    Args:
        ledger: What was spent and released.
        reproducible: Whether the noise derives from the published seed.
        code: What made the releases: ``package`` (name and version) and ``git_revision`` (or
            None where the package is installed).

    Returns:
        What ``certificate.schema.json`` describes.

    Raises:
        RunFailed: Not all releases were made that were accounted for.
    """
    claim = ledger.certificate(reproducible)
    budget = ledger.budget
    return {
        **claim,
        "cross_checks": cross_checks(ledger.events, budget.delta, budget.adjacency),
        "code": code,
    }


def schema() -> dict[str, Any]:
    """The JSON schema of certificates of the present version."""
    file = files("dpbench.privacy") / "certificate.schema.json"
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def schema_violations(certificate: dict[str, Any]) -> list[str]:
    """What is not as the schema says, one line each; with the place it is in."""
    errors = Draft202012Validator(schema()).iter_errors(certificate)
    return [
        f"{'.'.join(map(str, ('privacy', *error.absolute_path)))}: {error.message}"
        for error in sorted(errors, key=lambda error: list(map(str, error.absolute_path)))
    ]


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
