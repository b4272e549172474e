"""Frechet distances of features, and their limit for infinitely many images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Float64: TypeAlias = NDArray[np.float64]
# Chong and Forsyth 2020 use 15 sizes from 5000 to 50000 images
SIZES = 15
SMALLEST_SHARE = 0.1


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
    """Compute the moments of ``(N, D)`` features, N at least 2, in float64."""
    features = features.astype(np.float64)
    return Gaussian(features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False)))


def frechet_distance(mu1: Float64, cov1: Float64, mu2: Float64, cov2: Float64) -> float:
    """Compute the squared Frechet (2-Wasserstein) distance of two Gaussians.

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
    # Null directions have eigenvalues of the size of rounding errors. Their roots would not be
    # small (1e-16 becomes 1e-8) and there can be thousands of them, so they are dropped.
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    root = vectors[:, kept] * np.sqrt(values[kept])
    inner = np.linalg.eigvalsh(root.T @ cov2 @ root)
    trace_of_root = np.sqrt(np.clip(inner, 0, None)).sum()
    difference = mu1 - mu2
    distance = difference @ difference + np.trace(cov1) + np.trace(cov2) - 2 * trace_of_root
    return max(float(distance), 0.0)


def frechet_at_infinity(
    features: NDArray[np.floating], reference: Gaussian, rng: np.random.Generator
) -> float:
    """Estimate the Frechet distance of infinitely many synthetic images: FID-infinity.

    Chong and Forsyth 2020, section 3 and algorithm 2: the bias of the distance falls with 1 / N,
    so a line in 1 / N is fitted to distances of subsets of N images, and its intercept is returned.
    The sizes are evenly spaced from a tenth of all images, or D + 1 if that is larger, to all. The
    bias from the number of real images stays.

    Args:
        features: ``(N, D)``, of the synthetic images, N more than 2 D, so that sizes differ.
        reference: Moments of the real images.
        rng: Random generator of the subsets.

    Returns:
        Squared units of the features; may be slightly negative, as an estimate.
    """
    count, dimension = features.shape
    smallest = max(int(SMALLEST_SHARE * count), dimension + 1)
    sizes = np.linspace(smallest, count, SIZES).astype(int)
    distances = []
    for size in sizes:
        part = gaussian(rng.permutation(features)[:size])
        distances.append(
            frechet_distance(reference.mean, reference.covariance, part.mean, part.covariance)
        )
    _, intercept = np.polyfit(1 / sizes, distances, 1)
    return float(intercept)
