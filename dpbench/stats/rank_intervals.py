"""Ranks that the intervals of scores allow: methods whose intervals overlap are tied."""

from __future__ import annotations

from collections.abc import Sequence


def rank_intervals(
    intervals: Sequence[tuple[float, float]], higher_is_better: bool
) -> list[tuple[int, int]]:
    """Return the best and the worst rank that each score can have.

    A score is surely better than another if their intervals do not touch. Scores that share ranks
    are tied: which of them is better was not shown. With 95% intervals this is a cautious pairwise
    comparison, and no joint statement about all ranks.

    Args:
        intervals: Lower and upper end of each score's interval.
        higher_is_better: Direction of the score.

    Returns:
        For each score its best and its worst rank, counted from 1.
    """
    sign = 1 if higher_is_better else -1
    # each as its worst and its best end
    ends = [sorted((sign * low, sign * high)) for low, high in intervals]
    ranks = []
    for worst, best in ends:
        better = sum(other_worst > best for other_worst, _ in ends)
        worse = sum(other_best < worst for _, other_best in ends)
        ranks.append((1 + better, len(ends) - worse))
    return ranks
