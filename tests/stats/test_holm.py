from __future__ import annotations

import math

import pytest

from dpbench.stats.holm import adjust_by_holm


def test_the_smallest_is_multiplied_by_all_and_the_next_by_the_rest() -> None:
    assert adjust_by_holm([0.01, 0.04, 0.02]) == pytest.approx([0.03, 0.04, 0.04])


def test_adjusted_values_keep_the_order_of_the_tests_and_stay_monotone() -> None:
    # 3 x 0.02 and 2 x 0.021: the second would come below the first
    assert adjust_by_holm([0.5, 0.02, 0.021]) == pytest.approx([0.5, 0.06, 0.06])


def test_adjusted_values_are_probabilities() -> None:
    assert adjust_by_holm([0.6, 0.9]) == [1.0, 1.0]


def test_one_test_needs_no_correction_and_none_gives_none() -> None:
    assert adjust_by_holm([0.03]) == [0.03]
    assert adjust_by_holm([]) == []


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan])
def test_what_is_no_probability_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        adjust_by_holm([0.5, wrong])
