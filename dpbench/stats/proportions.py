"""Intervals of shares."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson_interval(
    successes: float, trials: float, confidence: float = 0.95
) -> tuple[float, float]:
    """The score interval of a share (Wilson 1927): no normal approximation at the estimate.

    Args:
        successes: In [0, trials]; a half counts for half.
        trials: Independent ones, more than 0; an effective number need not be whole.
        confidence: Two-sided coverage, in (0, 1).

    Returns:
        Lower and upper end, in [0, 1]: all shares that a score test does not reject.
    """
    z2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    centre = (successes + z2 / 2) / (trials + z2)
    spread = successes * (1 - successes / trials) + z2 / 4
    half = math.sqrt(z2 * spread) / (trials + z2)
    return max(centre - half, 0.0), min(centre + half, 1.0)
