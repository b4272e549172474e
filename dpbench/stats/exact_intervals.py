"""Exact confidence intervals of a standard deviation and of a probability."""

from __future__ import annotations

import math

from scipy.stats import beta, chi2


def scale_interval(sum_squares: float, count: int, level: float) -> tuple[float, float]:
    """Chi-square interval of the standard deviation of a centred normal sample.

    Args:
        sum_squares: Sum of squares of the sample.
        count: Size of the sample, at least 1.
        level: 1 - coverage, in (0, 1).
    """
    largest, smallest = (float(chi2.isf(tail, count)) for tail in (level / 2, 1 - level / 2))
    return math.sqrt(sum_squares / largest), math.sqrt(sum_squares / smallest)


def proportion_interval(successes: int, trials: int, level: float) -> tuple[float, float]:
    """Exact interval of a probability (Clopper and Pearson 1934).

    Args:
        successes: Number of successes.
        trials: Number of independent trials, at least 1.
        level: Upper bound of 1 - coverage, in (0, 1).
    """
    failures = trials - successes
    low = beta.ppf(level / 2, successes, failures + 1) if successes else 0.0
    high = beta.ppf(1 - level / 2, successes + 1, failures) if failures else 1.0
    return float(low), float(high)
