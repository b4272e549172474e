"""Confidence intervals of proportions."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson_interval(
    successes: float, trials: float, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the score interval of a proportion (Wilson 1927).

    Args:
        successes: Number of successes, in [0, trials]; it need not be whole.
        trials: Number of independent trials, more than 0; an effective number need not be whole.
        confidence: Two-sided coverage, in (0, 1).

    Returns:
        Lower and upper end, in [0, 1], of the proportions that a score test does not reject.
    """
    z2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    centre = (successes + z2 / 2) / (trials + z2)
    spread = successes * (1 - successes / trials) + z2 / 4
    half = math.sqrt(z2 * spread) / (trials + z2)
    return max(centre - half, 0.0), min(centre + half, 1.0)
