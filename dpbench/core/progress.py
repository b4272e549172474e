"""How long-running work reports progress, without knowing how it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

IN_WORDS = {"fit": "training", "sample": "sampling"}  # the parts of a run that are no evaluators


class Task(Protocol):
    """A piece of work in progress."""

    def advance(self, amount: float, note: str = "") -> None:
        """Report ``amount`` more units as done; ``note`` is shown beside the bar."""


class Progress(Protocol):
    """Receives progress updates."""

    def task(
        self, label: str, total: float, unit: str, done: float = 0
    ) -> AbstractContextManager[Task]:
        """Start a piece of work of ``total`` units, ``done`` of which are done already."""

    def note(self, text: str) -> None:
        """Report one line of text."""

    def part(self, name: str) -> AbstractContextManager[None]:
        """Enter a part of a run, by its name in records: training, sampling or an evaluator."""


class Silent:
    """Ignores all progress updates."""

    def advance(self, amount: float, note: str = "") -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def part(self, name: str) -> AbstractContextManager[None]:
        """Enter a part of a run."""
        return nullcontext()

    @contextmanager
    def task(self, label: str, total: float, unit: str, done: float = 0) -> Iterator[Task]:
        """Start a piece of work that is not shown."""
        yield self


def duration(seconds: float) -> str:
    """A duration in convenient units: ``42 s``, ``3 min 05 s``, ``2 h 10 min``, ``12 days``."""
    whole, minutes = round(seconds), round(seconds / 60)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{seconds / 86400:,.0f} days"
