"""Statistics of features, distances between them, and intervals of shares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Float64: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Gaussian:
    """The first two moments of a set of features.

    Attributes:
        mean: ``(D,)``, float64.
        covariance: ``(D, D)``, float64, unbiased.
    """

    mean: Float64
    covariance: Float64


def gaussian(features: NDArray[np.floating]) -> Gaussian:
    """The moments of ``(N, D)`` features, N at least 2, computed in float64."""
    features = features.astype(np.float64)
    return Gaussian(features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False)))


def frechet_distance(mu1: Float64, cov1: Float64, mu2: Float64, cov2: Float64) -> float:
    """Squared Frechet (2-Wasserstein) distance of two Gaussians.

    ``|mu1 - mu2|^2 + Tr(cov1 + cov2 - 2 (cov1 cov2)^(1/2))``: Dowson and Landau 1982; on
    Inception features it is the FID of Heusel et al. 2017, equation 6. The trace of the root is
    that of the symmetric ``(R cov2 R)^(1/2)`` with ``R = cov1^(1/2)``, so that two symmetric
    eigendecompositions suffice.

    Args:
        mu1: ``(D,)``, float64.
        cov1: ``(D, D)``, float64, symmetric positive semi-definite; may be singular.
        mu2: As ``mu1``.
        cov2: As ``cov1``.

    Returns:
        A number of at least 0, in squared units of the features.
    """
    values, vectors = np.linalg.eigh(cov1)
    # Null directions come out as eigenvalues of the size of rounding; their roots would not be
    # small (1e-16 becomes 1e-8) and there can be thousands of them, so they are left out.
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    root = vectors[:, kept] * np.sqrt(values[kept])
    inner = np.linalg.eigvalsh(root.T @ cov2 @ root)
    trace_of_root = np.sqrt(np.clip(inner, 0, None)).sum()
    difference = mu1 - mu2
    distance = difference @ difference + np.trace(cov1) + np.trace(cov2) - 2 * trace_of_root
    return max(float(distance), 0.0)


def wilson(successes: float, trials: float, confidence: float = 0.95) -> tuple[float, float]:
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
