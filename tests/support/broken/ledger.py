"""Broken ledgers."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.epsilon import epsilon
from dpbench.privacy.events import Event
from dpbench.privacy.ledger import Allowance, PrivacyLedger


class Lenient(PrivacyLedger):
    """Spends whatever it is asked to."""

    def spend(self, event: Event) -> Allowance:
        budget, self.budget = self.budget, PrivacyBudget(math.inf)
        try:
            return super().spend(event)
        finally:
            self.budget = budget


def tolerant(share: float) -> type[PrivacyLedger]:
    """Lets a run spend so much more than its budget."""

    class Tolerant(PrivacyLedger):
        def spend(self, event: Event) -> Allowance:
            budget = self.budget
            self.budget = replace(budget, epsilon=(1 + share) * budget.epsilon)
            try:
                return super().spend(event)
            finally:
                self.budget = budget

    return Tolerant


class Journalless(PrivacyLedger):
    """Starts every fit with an empty journal."""

    def __init__(self, budget: PrivacyBudget, journal: Path, planned: Any) -> None:
        journal.unlink(missing_ok=True)
        super().__init__(budget, journal, planned)


class Forgetful(PrivacyLedger):
    """Does not read its journal."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._written = []


class Unwritten(PrivacyLedger):
    """Writes nothing down."""

    def __init__(self, budget: PrivacyBudget, journal: object = None) -> None:
        super().__init__(budget)


class Permissive(PrivacyLedger):
    """Lets a purpose be spent twice."""

    def spend(self, event: Event) -> Allowance:
        count = len(self.events)
        allowance = super().spend(replace(event, purpose=f"{event.purpose} {count}"))
        return allowance


class Planless(PrivacyLedger):
    """Spends whatever the method wants, planned or not."""

    def __init__(self, budget: PrivacyBudget, journal: Path | None = None, planned: Any = None):
        super().__init__(budget, journal)


class Referring(PrivacyLedger):
    """Keeps the method's own event, which the method can change."""

    def spend(self, event: Event) -> Allowance:
        allowance = super().spend(event)
        allowance.event = event
        return allowance


class Trusting(PrivacyLedger):
    """Believes what an event says of its own cost."""

    def spend(self, event: Event) -> Allowance:
        allowance = Allowance(event)
        self._allowances.append(allowance)
        return allowance


class Hasty(PrivacyLedger):
    """Certifies a run that is not over."""

    def certificate(self, reproducible: bool) -> dict[str, Any]:
        made = [allowance.released for allowance in self._allowances]
        for allowance in self._allowances:
            allowance.released = allowance.event.steps
        try:
            return super().certificate(reproducible)
        finally:
            for allowance, before in zip(self._allowances, made, strict=True):
                allowance.released = before


class LastOnly(PrivacyLedger):
    """Adds nothing up."""

    def spent(self) -> float:
        return epsilon(self.events[-1:], self.budget.delta, self.budget.adjacency)
