"""Timing things side by side, so that what disturbs one disturbs them all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dpbench.core.progress import Task

# What ends sooner is done again and again until then, so that the clock and the scheduler's slices
# do not matter.
SHORTEST_SECONDS = 0.2


@dataclass(frozen=True)
class Spread:
    """Repeated measurements of one quantity.

    Attributes:
        median: Of the repeats.
        low: The smallest.
        high: The largest.
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
    """What came of one variant.

    Attributes:
        seconds: That it took, one for each repeat; none where it failed.
        result: What its last run returned.
        reason: Why it failed; ``""`` where it did not.
    """

    seconds: list[float] = field(default_factory=list)
    result: Any = None
    reason: str = ""

    def rate(self, amount: float) -> Spread | None:
        """How much of ``amount``, done in each repeat, is done in a second."""
        return Spread.of([amount / each for each in self.seconds]) if self.seconds else None

    def ratio(self, yardstick: Timed) -> float | None:
        """Speed relative to the yardstick's, the median over repeats; above 1 is faster."""
        if not self.seconds or not yardstick.seconds:
            return None
        pairs = zip(self.seconds, yardstick.seconds, strict=True)
        return statistics.median(theirs / ours for ours, theirs in pairs)


def side_by_side(
    variants: Mapping[str, Callable[[], Any]], repeats: int, task: Task
) -> dict[str, Timed]:
    """Time every variant ``repeats`` times, after one run of each to warm up.

    Each repeat runs all variants, every other repeat in reverse order, so that a neighbour on the
    machine or a changing clock hits all alike; ratios are taken within a repeat. A variant that
    raises is not run again.

    Args:
        variants: What to time, by name.
        repeats: At least 1.
        task: Advances by 1 with every run of every variant, also one that is left out.

    Returns:
        By name, in the order of ``variants``.
    """
    timed = {name: Timed() for name in variants}
    for repeat in range(-1, repeats):
        for name in list(variants) if repeat % 2 else reversed(list(variants)):
            each = timed[name]
            if not each.reason:
                try:
                    seconds, each.result = _timed(variants[name])
                except Exception as error:  # a variant that cannot do it is a row with the reason
                    each.reason, each.seconds = reason_of(error), []
                else:
                    if repeat >= 0:
                        each.seconds.append(seconds)
            task.advance(1, name)
    return timed


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that a call takes, and what it returns."""
    calls, elapsed, started = 0, 0.0, time.perf_counter()
    while not calls or elapsed < SHORTEST_SECONDS:
        result = function()
        calls += 1
        elapsed = time.perf_counter() - started
    return elapsed / calls, result


def reason_of(error: Exception) -> str:
    """An error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
