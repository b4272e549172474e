from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from dpbench.evaluators.distances.kid import kernel_distance
from tests.support.features import correlated


def test_kernel_distance_is_that_of_torch_fidelity() -> None:
    first, second = correlated(1), correlated(2)
    expected = kid_features_to_metric(
        *(torch.from_numpy(x).double() for x in (first, second)),
        kid_subsets=3,
        kid_subset_size=100,
        rng_seed=5,
        verbose=False,
    )["kernel_inception_distance_mean"]
    found = kernel_distance(first, second, subsets=3, size=100, seed=5)
    assert found == pytest.approx(expected, rel=1e-6)


def test_kernel_distance_is_unbiased() -> None:
    rng = np.random.default_rng(0)
    same = [kernel_distance(*rng.normal(size=(2, 50, 4)), 1, 50, 0) for _ in range(300)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(len(same))
    assert min(same) < 0
