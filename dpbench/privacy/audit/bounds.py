"""What a sample shows: confidence intervals, and lower bounds of epsilon from guesses.

Pure functions of counts and sums. The bounds here refute claims; no claim rests on them.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.stats import beta, binom, chi2, norm

LARGEST_EPSILON = 100.0


def scale_interval(sum_squares: float, count: int, level: float) -> tuple[float, float]:
    """Chi-square interval of the standard deviation of a centred normal sample.

    Args:
        sum_squares: Of the sample.
        count: Its size, at least 1.
        level: The chance of an honest sample to miss, in (0, 1).
    """
    largest, smallest = (float(chi2.isf(tail, count)) for tail in (level / 2, 1 - level / 2))
    return math.sqrt(sum_squares / largest), math.sqrt(sum_squares / smallest)


def proportion_interval(successes: int, trials: int, level: float) -> tuple[float, float]:
    """Exact interval of a probability (Clopper and Pearson 1934).

    Args:
        successes: How often it happened.
        trials: Of how many independent trials, at least 1.
        level: The largest chance of an honest sample to miss, in (0, 1).
    """
    failures = trials - successes
    low = beta.ppf(level / 2, successes, failures + 1) if successes else 0.0
    high = beta.ppf(1 - level / 2, successes + 1, failures) if failures else 1.0
    return float(low), float(high)


def one_run_epsilon(
    canaries: int, guesses: int, correct: int, delta: float, level: float = 0.05
) -> float:
    """Lower bound of epsilon from one run (Steinke, Nasr and Jagielski 2023, arXiv 2305.08846).

    Each canary is in the private set with probability 1/2, independently. Of a mechanism that is
    (epsilon, delta)-private under add/remove adjacency, ``correct`` of ``guesses`` guesses are
    right with probability at most (theorem 5.2, worst case over how delta is spread)
    ``beta + 2 m delta max_i P[v > W >= v - i] / i``, with ``W ~ Bin(r, e^eps / (1 + e^eps))`` and
    ``beta = P[W >= v]``.

    Args:
        canaries: m, how many there are.
        guesses: r, how many canaries' membership was guessed.
        correct: v, how many guesses were right.
        delta: Of the claim.
        level: The chance that the bound is wrong.

    Returns:
        The largest epsilon that ``correct`` refutes at ``level``; 0 where it refutes none.

    Example:
        >>> round(one_run_epsilon(1000, 500, 500, 1e-5), 2)
        5.09
    """

    def excess(epsilon: float) -> float:
        probability = 1 / (1 + math.exp(-epsilon))
        chance = float(binom.sf(correct - 1, guesses, probability))
        if correct:
            lost = np.arange(1, correct + 1)
            window = np.cumsum(binom.pmf(correct - lost, guesses, probability))
            chance += 2 * canaries * delta * float((window / lost).max())
        return chance - level

    if excess(0.0) >= 0:
        return 0.0
    return float(brentq(excess, 0.0, LARGEST_EPSILON))


def gaussian_dp_epsilon(mu: float, delta: float) -> float:
    """Epsilon at ``delta`` of a mechanism that is mu-Gaussian-DP (Dong et al. 2019, corollary 1).

    Args:
        mu: Distance of two unit normals that are as hard to tell apart as the neighbours.
        delta: In (0, 1).
    """

    def excess(epsilon: float) -> float:
        tail = math.exp(epsilon + float(norm.logcdf(-epsilon / mu - mu / 2)))
        return float(norm.cdf(-epsilon / mu + mu / 2)) - tail - delta

    if mu <= 0 or excess(0.0) <= 0:
        return 0.0
    # from Gaussian tails: delta <= P[N > epsilon / mu - mu / 2]
    largest = mu * (mu / 2 + float(norm.isf(delta)))
    return float(brentq(excess, 0.0, largest))
