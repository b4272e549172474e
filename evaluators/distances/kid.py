"""Kernel inception distance: the squared maximum mean discrepancy of features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def kernel_distance(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    subsets: int,
    size: int,
    seed: int,
) -> float:
    """Compute KID: the unbiased estimate of MMD^2 under a cubic kernel, averaged over subsets.

    Binkowski et al. 2018, section 4: ``k(x, y) = (x . y / D + 1)^3``, with the estimate of Gretton
    et al. 2012, equation 3. The definition and the choice of subsets are exactly
    torch-fidelity's, whose code takes three times as long, since it uses NumPy's general power.

    Args:
        first: ``(N, D)``.
        second: ``(M, D)``.
        subsets: Number of subsets.
        size: Number of images of each set in a subset, in [2, min(N, M)].
        seed: Seed of the subsets, in [0, 2**32).

    Returns:
        Its expectation is 0 for two sets of one distribution, so about half of such values are
        negative.
    """
    rng = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        x, y = (
            features[rng.choice(len(features), size, replace=False)].astype(np.float64)
            for features in (first, second)
        )
        within = _sum_of_kernels(x, x) - _sum_of_own(x) + _sum_of_kernels(y, y) - _sum_of_own(y)
        values.append(within / (size * (size - 1)) - 2 * _sum_of_kernels(x, y) / size**2)
    return float(np.mean(values))


def _sum_of_kernels(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    base = (x @ y.T / x.shape[1] + 1).ravel()
    return float((base * base) @ base)


def _sum_of_own(x: NDArray[np.float64]) -> float:
    """Sum the kernels of each image with itself, which the unbiased estimate leaves out."""
    return float(((np.square(x).sum(1) / x.shape[1] + 1) ** 3).sum())
