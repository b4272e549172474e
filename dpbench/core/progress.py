"""How long-running work tells of its progress, without knowing who listens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """One piece of work under way."""

    def advance(self, amount: float, note: str = "") -> None:
        """Say that ``amount`` more units are done; ``note`` is shown beside the bar."""


class Progress(Protocol):
    """Someone who wants to know what is going on."""

    def task(
        self, label: str, total: float, unit: str, done: float = 0
    ) -> AbstractContextManager[Task]:
        """Announce a piece of work of ``total`` units, ``done`` of which were done before."""

    def note(self, text: str) -> None:
        """Say one line."""


class Silent:
    """Listens to nothing."""

    def advance(self, amount: float, note: str = "") -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    @contextmanager
    def task(self, label: str, total: float, unit: str, done: float = 0) -> Iterator[Task]:
        """Announce to nobody."""
        yield self
