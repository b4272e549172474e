from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dpbench.stats.exact_intervals import proportion_interval, scale_interval


def test_intervals_miss_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    missed = sum(
        not low <= 2.0 <= high
        for low, high in (
            scale_interval(float(np.square(2 * rng.standard_normal(20)).sum()), 20, 0.1)
            for _ in range(4000)
        )
    )
    assert stats.binomtest(missed, 4000, 0.1).pvalue > 1e-3
    for successes in (0, 3, 10):
        exact = stats.binomtest(successes, 10).proportion_ci(0.9, "exact")
        assert proportion_interval(successes, 10, 0.1) == pytest.approx((exact.low, exact.high))
