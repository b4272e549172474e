"""Precision, recall, density and coverage by balls around images, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

Float32: TypeAlias = NDArray[np.float32]
# distances in memory at a time: 20 MB of float32, near enough to the caches of a CPU
CHUNK_DISTANCES = 5_000_000


class Prdc(NamedTuple):
    """Shares of images in the nearest-neighbour balls of the other set.

    Attributes:
        precision: Share of synthetic images in the ball of some real image, in [0, 1].
        recall: Share of real images in the ball of some synthetic image, in [0, 1].
        density: Mean number of real images' balls that hold a synthetic image, over k; its
            expectation is 1 for two sets of one distribution, and it can exceed 1.
        coverage: Share of real images whose ball holds a synthetic image, in [0, 1].
    """

    precision: float
    recall: float
    density: float
    coverage: float


def squared_radii(features: Float32, k: int) -> Float32:
    """Compute squared Euclidean distances to the k-th nearest other image.

    Args:
        features: ``(N, D)``, float32, N more than k.
        k: At least 1.

    Returns:
        ``(N,)``, float32.
    """
    features = features - features.mean(0)
    # k + 1, because the nearest image is the image itself
    return np.concatenate(
        [
            torch.from_numpy(distances).topk(k + 1, largest=False, sorted=False).values.amax(1)
            for _, distances in _squared_distances(features, features)
        ]
    )


def prdc(
    real: Float32, real_radii: Float32, synthetic: Float32, synthetic_radii: Float32, k: int
) -> Prdc:
    """Compute the four metrics, for balls that reach to the k-th nearest image of the same set.

    Precision and recall: Kynkaanniemi et al. 2019, equations 1 and 2. Density and coverage: Naeem
    et al. 2020, equations 3 and 4. Balls include their surface, as in the former paper.

    Args:
        real: ``(N, D)``, float32.
        real_radii: ``(N,)``, from ``squared_radii``.
        synthetic: ``(M, D)``, float32.
        synthetic_radii: ``(M,)``, from ``squared_radii``.
        k: As in ``squared_radii``.
    """
    # centring keeps the distances and reduces their rounding errors
    centre = real.mean(0)
    balls_around = np.zeros(len(synthetic), np.int64)
    covered = recalled = 0
    for rows, distances in _squared_distances(real - centre, synthetic - centre):
        inside = distances <= real_radii[rows, None]
        balls_around += inside.sum(0)
        covered += int(inside.any(1).sum())
        recalled += int((distances <= synthetic_radii).any(1).sum())
    return Prdc(
        precision=float((balls_around > 0).mean()),
        recall=recalled / len(real),
        density=float(balls_around.mean()) / k,
        coverage=covered / len(real),
    )


def _squared_distances(first: Float32, second: Float32) -> Iterator[tuple[slice, Float32]]:
    """Yield chunks of rows of ``first`` and their ``(B, M)`` squared distances to ``second``."""
    own, norms = np.square(first).sum(1), np.square(second).sum(1)
    size = max(1, CHUNK_DISTANCES // len(second))
    for start in range(0, len(first), size):
        rows = slice(start, start + size)
        distances = first[rows] @ (-2 * second.T)
        distances += norms
        distances += own[rows, None]
        yield rows, distances
