"""The privacy ledger: every event is written down before anything is released under it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from dpbench.core.errors import RunFailed, UserError
from dpbench.core.files import write_text
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.epsilon import ACCOUNTANT, epsilon
from dpbench.privacy.events import EVENT_TYPES, DPSGDEvent, Event, event_from_json, event_to_json

Version = Literal[3]
(CERTIFICATE_VERSION,) = get_args(Version)
Unit = Literal["one image with its label"]
(UNIT,) = get_args(Unit)
NOT_COVERED = (
    "floating-point arithmetic and a research-grade generator stand in for exact Gaussian noise",
    "evaluation scores are computed on real images and are not differentially private",
    "the choice of hyper-parameters: see tuning",
    "other runs on the same images: what several runs spend adds up",
    "timing and other side channels",
    "methods that get at the images around the mechanisms, as hostile code can in Python",
)
Release = Literal[
    "valid", "not private", "void for release: noise reproducible from a published seed"
]
VALID, NOT_PRIVATE, VOID = map(str, get_args(Release))


def release_status(private: bool, reproducible: bool) -> str:
    """Whether samples may be released, in the words of the certificate.

    Args:
        private: Whether epsilon is finite.
        reproducible: Whether the noise derives from the published seed.
    """
    if not private:
        return NOT_PRIVATE
    return VOID if reproducible else VALID


class Allowance:
    """Permission to make the releases of one event, each once and in order.

    Its state is the number of releases made. It is saved with the training state, so that a resumed
    run can neither make more releases than were accounted for nor repeat one.
    """

    def __init__(self, event: Event) -> None:
        """Start with no release made."""
        self.event = event
        self.released = 0

    def release(self, step: int) -> None:
        """Count release number ``step`` (from 0); must be called before the release.

        Raises:
            RunFailed: ``step`` is not the next release, or all releases were made.
        """
        if step != self.released:
            raise RunFailed(
                f"{self.event.purpose}: release {step} is out of turn; "
                f"{self.released} of {self.event.steps} were made"
            )
        if step >= self.event.steps:
            raise RunFailed(
                f"{self.event.purpose}: all {self.event.steps} releases accounted for were made"
            )
        self.released += 1

    def state_dict(self) -> dict[str, int]:
        """The number of releases made."""
        return {"released": self.released}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore the number of releases made."""
        self.released = int(state["released"])


class PrivacyLedger:
    """Records what a run spends and refuses what would exceed its budget.

    Args:
        budget: The limit.
        journal: File to which every event is written before ``spend`` returns. A resumed run must
            spend the same events in the same order. Its noise is then the same as before, because
            it is keyed by the run's secret key, so nothing is released twice.
        planned: The events that must be spent, in order; None where nothing was planned.
    """

    def __init__(
        self,
        budget: PrivacyBudget,
        journal: Path | None = None,
        planned: Sequence[Event] | None = None,
    ) -> None:
        """Read the journal if an interrupted run left one.

        Raises:
            RunFailed: The journal is damaged, or was written by another version.
        """
        self.budget = budget
        self._planned = None if planned is None else tuple(planned)
        self._journal = journal
        self._written: list[Event] = []
        self._allowances: list[Allowance] = []
        if journal is not None and journal.exists():
            try:
                self._written = [event_from_json(each) for each in json.loads(journal.read_text())]
            except (KeyError, TypeError, ValueError, RecursionError) as error:
                raise RunFailed(
                    f"{journal} is not a journal of this version of dpbench "
                    f"({type(error).__name__}: {error}): start anew with --overwrite, "
                    "which is a second release"
                ) from error

    @property
    def events(self) -> tuple[Event, ...]:
        """Events spent so far, in order."""
        return tuple(allowance.event for allowance in self._allowances)

    def spend(self, event: Event) -> Allowance:
        """Write down an event and return the permission to make its releases.

        The permission holds a copy of the values that were written down: what happens to ``event``
        afterwards changes neither the account nor the releases.

        Raises:
            UserError: The event would exceed the budget; nothing is written.
            RunFailed: The event is not of dpbench, or not what the plan says; the run spends
                another event than it did before it was interrupted, or spends twice under one
                purpose, which would use the same noise twice.
        """
        event = _plain_copy(event)
        if event.purpose in [earlier.purpose for earlier in self.events]:
            raise RunFailed(f"{event.purpose!r} was spent already: each purpose has its own noise")
        events = (*self.events, event)
        total = epsilon(events, self.budget.delta, self.budget.adjacency)
        if total > self.budget.epsilon:
            raise UserError(
                f"{event.purpose!r} would bring epsilon to {total:.4g}, over the budget of "
                f"{self.budget.epsilon:g}: use more noise, fewer steps or a larger --eps"
            )
        position = len(self._allowances)
        if self._planned is not None and self._planned[position : position + 1] != (event,):
            raise RunFailed(
                f"fit spends {event}, and the plan has {self._planned_at(position)} in its place: "
                "plan must list every event that fit spends, in order"
            )
        if position < len(self._written) and self._written[position] != event:
            raise RunFailed(
                f"this run spent {self._written[position]} before it was interrupted and now wants "
                f"to spend {event}: start anew with --overwrite, which is a second release"
            )
        if self._journal is not None and position >= len(self._written):
            write_text(self._journal, json.dumps([event_to_json(each) for each in events]))
        allowance = Allowance(event)
        self._allowances.append(allowance)
        return allowance

    def _planned_at(self, position: int) -> str:
        assert self._planned is not None
        return str(self._planned[position]) if position < len(self._planned) else "nothing"

    def releases(self) -> list[dict[str, Any]]:
        """Number of releases made for each purpose, counted before each release."""
        return [
            {"purpose": allowance.event.purpose, "released": allowance.released}
            for allowance in self._allowances
        ]

    def spent(self) -> float:
        """Epsilon of all events spent, whether or not their releases have been made."""
        return epsilon(self.events, self.budget.delta, self.budget.adjacency)

    def spent_after(self, allowance: Allowance, steps: int) -> float:
        """Epsilon if ``allowance`` had made only its first ``steps`` releases, for display."""
        event = allowance.event
        if isinstance(event, DPSGDEvent):
            event = replace(event, steps=steps)
        others = [each for each in self.events if each is not allowance.event]
        return epsilon([*others, event], self.budget.delta, self.budget.adjacency)

    def certificate(self, reproducible: bool) -> dict[str, Any]:
        """The privacy claim with the events that it rests on.

        Args:
            reproducible: Whether the noise derives from the published seed.

        Raises:
            RunFailed: Not all releases accounted for were made, so the run is not over; or the run
                spent more before it was interrupted than it has spent since, or was planned to
                spend more.
        """
        if len(self._allowances) < len(self._written):
            raise RunFailed("this run spent more before it was interrupted than it did since")
        if self._planned is not None and len(self._allowances) < len(self._planned):
            raise RunFailed(
                f"fit is over without having spent {self._planned_at(len(self._allowances))}: plan "
                "must list the events that fit spends, and no others"
            )
        for allowance in self._allowances:
            if allowance.released != allowance.event.steps:
                raise RunFailed(
                    f"{allowance.event.purpose}: {allowance.released} releases were made but "
                    f"{allowance.event.steps} are accounted for"
                )
        return {
            "certificate_version": CERTIFICATE_VERSION,
            "epsilon": self.spent() if self.budget.private else float("inf"),
            "delta": self.budget.delta,
            "adjacency": self.budget.adjacency,
            "unit": UNIT,
            "accountant": ACCOUNTANT,
            "events": [
                {**event_to_json(allowance.event), "released": allowance.released}
                for allowance in self._allowances
            ],
            "release": release_status(self.budget.private, reproducible),
            "not_covered": list(NOT_COVERED),
        }


def _plain_copy(event: Event) -> Event:
    """An equal event of plain numbers and text, checked again.

    Raises:
        RunFailed: It is not of one of dpbench's own classes, whose cost the accountant knows.
    """
    if type(event) not in EVENT_TYPES.values():
        kinds = ", ".join(kind.__name__ for kind in EVENT_TYPES.values())
        raise RunFailed(
            f"{type(event).__name__} is not an event of dpbench: spend one of {kinds}, and none "
            "derived from them"
        )
    return event_from_json(json.loads(json.dumps(event_to_json(event))))
