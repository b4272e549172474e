"""Features of a set of images, with statistics that are computed once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..distances.frechet import Gaussian, gaussian
from ..distances.prdc import squared_radii

NEIGHBOURS = 5
# The cost is quadratic: this many images cost less than a third of the CNN's features of 10000
# images. The number is the same in every space, since the metrics depend on it.
NEIGHBOURHOOD = 5000


@dataclass(frozen=True)
class FeatureSet:
    """Features in random order, so that the first ones are a random subset.

    Attributes:
        features: ``(N, D)``, float32.
        labels: ``(N,)``, int64.
        head: ``Extractor.head``.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    head: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        """Return the number of images, N."""
        return len(self.features)

    def __getitem__(self, index: slice | NDArray[np.bool_]) -> FeatureSet:
        """Return the images at ``index``."""
        return FeatureSet(self.features[index], self.labels[index], self.head)

    @cached_property
    def broken(self) -> int:
        """Number of images with a feature that is not finite."""
        return int((~np.isfinite(self.features)).any(1).sum())

    @cached_property
    def moments(self) -> Gaussian:
        """Mean and covariance of the features, of at least two images."""
        return gaussian(self.features)

    @cached_property
    def neighbourhood(self) -> FeatureSet:
        """The first ``NEIGHBOURHOOD`` images, among which neighbours are searched."""
        return self[:NEIGHBOURHOOD]

    @cached_property
    def radii(self) -> NDArray[np.float32]:
        """``(N,)``: squared distance to the ``NEIGHBOURS``-th nearest other image."""
        return squared_radii(self.features, NEIGHBOURS)
