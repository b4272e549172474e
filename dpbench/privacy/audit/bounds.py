"""Lower bounds of epsilon from an audit's guesses and scores.

The bounds are pure functions of counts. They refute claims; no claim rests on them.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom, norm

from dpbench.privacy.gaussian_dp import delta_of

LARGEST_EPSILON = 100.0


@lru_cache(maxsize=1024)  # an audit asks twice, and most audits of a claim agree
def one_run_epsilon(
    canaries: int, guesses: int, correct: int, delta: float, level: float = 0.05
) -> float:
    """Lower bound of epsilon from one run (Steinke, Nasr and Jagielski 2023, arXiv 2305.08846).

    Each canary is in the private set with probability 1/2, independently. If the mechanism is
    (epsilon, delta)-private under add/remove adjacency, at least ``correct`` of ``guesses`` guesses
    are right with probability at most (theorem 5.2, worst case over how delta is spread)
    ``beta + 2 m delta max_i P[v > W >= v - i] / i``, with ``W ~ Bin(r, e^eps / (1 + e^eps))`` and
    ``beta = P[W >= v]``.

    Args:
        canaries: Number of canaries m.
        guesses: Number of guesses r.
        correct: Number of right guesses v.
        delta: Claimed delta.
        level: Probability that the bound is wrong.

    Returns:
        The largest epsilon that ``correct`` refutes at ``level``; 0 if it refutes none.

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
    """Epsilon at ``delta`` of a mu-Gaussian-DP mechanism (Dong et al. 2019, corollary 1).

    Args:
        mu: Distance of two unit normals that are as hard to distinguish as neighbouring sets.
        delta: In (0, 1).
    """

    def excess(epsilon: float) -> float:
        return float(delta_of(mu, epsilon)) - delta

    if mu <= 0 or excess(0.0) <= 0:
        return 0.0
    # upper end of the search, from the Gaussian tail: delta <= P[N > epsilon / mu - mu / 2]
    largest = mu * (mu / 2 + float(norm.isf(delta)))
    return float(brentq(excess, 0.0, largest))
