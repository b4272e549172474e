"""Do two lists of accuracies put configurations into the same order?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau, rankdata, spearmanr

from ..distances.frechet import Float64

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class RankCorrelation:
    """Of two lists.

    Attributes:
        spearman: In [-1, 1].
        kendall: Tau-b, in [-1, 1].
    """

    spearman: float
    kendall: float


@dataclass(frozen=True)
class Selection:
    """What selecting the best of one list costs in the other.

    Attributes:
        regret: The best of the other list less the selected one's, at least 0.
        rank: Of the selected one in the other list, 1 for the best; ties share the lowest.
    """

    regret: float
    rank: float


def rank_correlation(x: Float64, y: Float64) -> RankCorrelation | str:
    """Spearman's rho and Kendall's tau-b (Kendall 1945) of two lists, or why there are none.

    Args:
        x: ``(K,)``, float64.
        y: As ``x``.
    """
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return "all configurations have the same accuracy"
    return RankCorrelation(float(spearmanr(x, y).statistic), float(kendalltau(x, y).statistic))


def select(selecting: Float64, judging: Float64) -> Selection:
    """Take the configuration that is best in one list and look at it in the other.

    Args:
        selecting: ``(K,)``, float64; of several best ones each is as likely to be taken, and the
            mean over them is returned.
        judging: ``(K,)``, float64.
    """
    taken = selecting == selecting.max()
    ranks = rankdata(-judging, method="min")
    return Selection(float(judging.max() - judging[taken].mean()), float(ranks[taken].mean()))


def bootstrap_interval(x: Float64, y: Float64, rng: np.random.Generator) -> tuple[float, float]:
    """The 95% percentile interval of Spearman's rho over configurations drawn with repetition.

    Args:
        x: ``(K,)``, float64; not all the same.
        y: As ``x``.
        rng: Source of the draws.

    Returns:
        Lower and upper end. Resamples without any difference in a list have no rho and are left
        out.
    """
    drawn = rng.integers(len(x), size=(RESAMPLES, len(x)))
    first, second = (_standardised(rankdata(each[drawn], axis=1)) for each in (x, y))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.nanpercentile((first * second).mean(axis=1), [tail, 100 - tail])
    return float(low), float(high)


def _standardised(ranks: Float64) -> Float64:
    """Rows of mean 0 and variance 1; NaN where a row is constant."""
    spread = ranks.std(axis=1, keepdims=True)
    spread[spread == 0] = np.nan
    standardised: Float64 = (ranks - ranks.mean(axis=1, keepdims=True)) / spread
    return standardised
