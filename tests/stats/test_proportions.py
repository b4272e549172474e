from __future__ import annotations

import pytest
from scipy.stats import binomtest

from dpbench.stats.proportions import wilson_interval


# Newcombe 1998, table I, method 3
@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_are_the_published_ones(
    successes: int, trials: int, low: float, high: float
) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("successes", [0, 1, 17, 50])
def test_wilson_intervals_are_those_of_scipy(successes: int, confidence: float) -> None:
    expected = binomtest(successes, 50).proportion_ci(confidence, method="wilson")
    found = wilson_interval(successes, 50, confidence)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)
