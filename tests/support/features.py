"""Features for tests of distances."""

from __future__ import annotations

import numpy as np


def correlated(seed: int, count: int = 500, dimension: int = 64) -> np.ndarray:
    """Normal features, correlated and of very different variances: ``(count, dimension)``."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(dimension, dimension)) * np.geomspace(1, 1e-3, dimension)
    return (rng.normal(size=(count, dimension)) @ mixing + rng.normal(size=dimension)).astype("f4")
