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


def duration(seconds: float) -> str:
    """Seconds as people say them: ``42 s``, ``3 min 05 s``, ``2 h 10 min``, ``12 days``."""
    whole, minutes = round(seconds), round(seconds / 60)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{seconds / 86400:,.0f} days"
