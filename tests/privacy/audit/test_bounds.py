"""Lower bounds of epsilon from an audit."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from dpbench.privacy.audit.bounds import gaussian_dp_epsilon, one_run_epsilon
from dpbench.privacy.epsilon import epsilon
from dpbench.privacy.events import GaussianEvent


def test_the_bound_from_one_run_has_the_values_that_are_known() -> None:
    # 500 and 1000 perfect guesses of 1000 canaries: even they do not reach epsilon = 10
    assert one_run_epsilon(1000, 500, 500, 1e-5) == pytest.approx(5.09, abs=0.005)
    assert one_run_epsilon(1000, 1000, 1000, 1e-5) == pytest.approx(5.78, abs=0.005)
    assert one_run_epsilon(1000, 500, 250, 1e-5) == 0
    assert one_run_epsilon(1000, 500, 0, 1e-5) == 0


@pytest.mark.parametrize(
    ("canaries", "guesses", "correct", "delta"),
    [(1000, 500, 400, 1e-5), (300, 100, 99, 1e-6), (1000, 1000, 700, 1e-3)],
)
def test_the_bound_from_one_run_is_where_the_theorems_probability_is_the_level(
    canaries: int, guesses: int, correct: int, delta: float
) -> None:
    """Against the theorem written down term by term."""
    eps = one_run_epsilon(canaries, guesses, correct, delta, level=0.05)
    w = stats.binom(guesses, math.exp(eps) / (1 + math.exp(eps)))
    worst = max((w.cdf(correct - 1) - w.cdf(correct - i - 1)) / i for i in range(1, correct + 1))
    assert w.sf(correct - 1) + 2 * canaries * delta * worst == pytest.approx(0.05, rel=1e-6)
    # with pure differential privacy it is the log-odds of the exact limit of a proportion
    share = stats.beta.ppf(0.05, correct, guesses - correct + 1)
    assert 0 < eps < math.log(share / (1 - share))
    pure = one_run_epsilon(canaries, guesses, correct, 0.0, level=0.05)
    assert pure == pytest.approx(math.log(share / (1 - share)))


def test_the_gaussian_bound_is_the_epsilon_of_one_gaussian_release() -> None:
    for noise_multiplier in (0.5, 1.0, 5.0):
        exact = gaussian_dp_epsilon(1 / noise_multiplier, 1e-5)
        assert exact == pytest.approx(
            epsilon([GaussianEvent(noise_multiplier, 1.0, "sum")], 1e-5), rel=1e-3
        )
    assert gaussian_dp_epsilon(0.0, 1e-5) == gaussian_dp_epsilon(-1.0, 1e-5) == 0
    assert gaussian_dp_epsilon(1e-9, 1e-5) == 0
