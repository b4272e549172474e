"""Time variants side by side, so that a disturbance of the machine hits all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dpbench.core.errors import described
from dpbench.core.progress import Task

# Shorter calls are repeated up to this time, so that clock and scheduler do not matter.
SHORTEST_SECONDS = 0.2


@dataclass(frozen=True)
class Spread:
    """Repeated measurements of one quantity.

    Attributes:
        median: Median of the repeats.
        low: Smallest value.
        high: Largest value.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Summarise at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass
class Timed:
    """Timings of one variant.

    Attributes:
        seconds: Seconds per call, one value for each repeat; empty if it failed.
        result: Return value of the last call.
        reason: Why it failed; ``""`` if it did not.
    """

    seconds: list[float] = field(default_factory=list)
    result: Any = None
    reason: str = ""

    def rate(self, amount: float) -> Spread | None:
        """Rate per second, where each call does ``amount`` of work."""
        return Spread.of([amount / each for each in self.seconds]) if self.seconds else None

    def ratio(self, yardstick: Timed) -> float | None:
        """Speed relative to the yardstick, median over repeats; above 1 is faster."""
        if not self.seconds or not yardstick.seconds:
            return None
        pairs = zip(self.seconds, yardstick.seconds, strict=True)
        return statistics.median(theirs / ours for ours, theirs in pairs)


def side_by_side(
    variants: Mapping[str, Callable[[], Any]], repeats: int, task: Task
) -> dict[str, Timed]:
    """Time every variant ``repeats`` times, after one warm-up of each.

    Each repeat runs all variants, every other repeat in reverse order, so that load on the machine
    or a changing clock affects all alike; ratios are taken within a repeat. A variant that raises
    is not run again.

    Args:
        variants: Functions to time, by name.
        repeats: At least 1.
        task: Advances by 1 for every run of every variant, including skipped ones.

    Returns:
        Timings by name, in the order of ``variants``.
    """
    timed = {name: Timed() for name in variants}
    for repeat in range(-1, repeats):
        for name in list(variants) if repeat % 2 else reversed(list(variants)):
            each = timed[name]
            if not each.reason:
                try:
                    seconds, each.result = _timed(variants[name])
                except Exception as error:  # the failure becomes a row with its reason
                    each.reason, each.seconds = described(error), []
                else:
                    if repeat >= 0:
                        each.seconds.append(seconds)
            task.advance(1, name)
    return timed


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds per call, and the return value."""
    calls, elapsed, started = 0, 0.0, time.perf_counter()
    while not calls or elapsed < SHORTEST_SECONDS:
        result = function()
        calls += 1
        elapsed = time.perf_counter() - started
    return elapsed / calls, result
