"""Which ranks the intervals of scores allow: no winner where intervals overlap."""

from __future__ import annotations

from collections.abc import Sequence

Interval = tuple[float | None, float | None]


def rank_intervals(
    intervals: Sequence[Interval], higher_is_better: bool
) -> list[tuple[int, int] | tuple[None, None]]:
    """The best and the worst rank of each score among all.

    A score is surely better than another where their intervals do not touch. Rows that share ranks
    are tied: which of them is better was not shown. With intervals of 95% each it is a cautious
    comparison of two, and no joint statement on all ranks.

    Args:
        intervals: Lower and upper end of each; None where there is none, such as for one seed.
            Such a score has no rank, and the others are ranked without it.
        higher_is_better: Which way is up.

    Returns:
        For each score its ranks, from 1; None twice where it has none.
    """
    sign = 1 if higher_is_better else -1

    def ends(interval: Interval) -> tuple[float, float] | None:
        low, high = interval
        if low is None or high is None:
            return None
        worst, best = sorted((sign * low, sign * high))
        return worst, best

    known = [found for found in map(ends, intervals) if found is not None]
    ranks: list[tuple[int, int] | tuple[None, None]] = []
    for interval in intervals:
        own = ends(interval)
        if own is None:
            ranks.append((None, None))
            continue
        better = sum(other[0] > own[1] for other in known)
        worse = sum(other[1] < own[0] for other in known)
        ranks.append((1 + better, len(known) - worse))
    return ranks
