"""Agreement of two lists of accuracies on the order of configurations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau, rankdata, spearmanr

from ..distances.frechet import Float64

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class RankCorrelation:
    """Rank correlations of two lists.

    Attributes:
        spearman: Spearman's rho, in [-1, 1].
        kendall: Kendall's tau-b, in [-1, 1].
    """

    spearman: float
    kendall: float


@dataclass(frozen=True)
class Selection:
    """Cost, in one list, of selecting the best configuration of another list.

    Attributes:
        regret: Difference in the judging list between its best value and that of the selected
            configuration, at least 0.
        rank: Rank of the selected configuration in the judging list, 1 for the best; ties share the
            lowest rank.
    """

    regret: float
    rank: float


def rank_correlation(x: Float64, y: Float64) -> RankCorrelation | str:
    """Return Spearman's rho and Kendall's tau-b (Kendall 1945), or the reason for having none.

    Args:
        x: ``(K,)``, float64.
        y: As ``x``.
    """
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return "all configurations have the same accuracy"
    return RankCorrelation(float(spearmanr(x, y).statistic), float(kendalltau(x, y).statistic))


def select(selecting: Float64, judging: Float64) -> Selection:
    """Select the best configuration by one list and judge it by another.

    Args:
        selecting: ``(K,)``, float64; several best configurations are equally likely to be selected,
            and the result is the mean over them.
        judging: ``(K,)``, float64.
    """
    taken = selecting == selecting.max()
    ranks = rankdata(-judging, method="min")
    return Selection(float(judging.max() - judging[taken].mean()), float(ranks[taken].mean()))


def bootstrap_interval(x: Float64, y: Float64, rng: np.random.Generator) -> tuple[float, float]:
    """Return the 95% percentile bootstrap interval of Spearman's rho over configurations.

    Args:
        x: ``(K,)``, float64; not all equal.
        y: As ``x``.
        rng: Random generator of the resamples.

    Returns:
        Lower and upper end. Resamples in which a list is constant have no rho and are ignored.
    """
    drawn = rng.integers(len(x), size=(RESAMPLES, len(x)))
    first, second = (_standardised(rankdata(each[drawn], axis=1)) for each in (x, y))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.nanpercentile((first * second).mean(axis=1), [tail, 100 - tail])
    return float(low), float(high)


def _standardised(ranks: Float64) -> Float64:
    """Scale rows to mean 0 and variance 1; a constant row becomes NaN."""
    spread = ranks.std(axis=1, keepdims=True)
    spread[spread == 0] = np.nan
    standardised: Float64 = (ranks - ranks.mean(axis=1, keepdims=True)) / spread
    return standardised
