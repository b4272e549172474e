from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from dpbench.evaluators.classifiers.agreement import bootstrap_interval, rank_correlation, select

SELECTING = np.array([50.0, 80.0, 70.0, 60.0])


JUDGING = np.array([40.0, 65.0, 75.0, 45.0])


def test_selecting_by_one_list_is_judged_by_the_other() -> None:
    taken = select(SELECTING, JUDGING)
    assert (taken.regret, taken.rank) == (10.0, 2.0)


def test_selecting_by_the_judge_itself_would_be_seen() -> None:
    """The broken twin: what peeks at real accuracy never regrets anything."""
    peeked = select(JUDGING, JUDGING)
    assert (peeked.regret, peeked.rank) == (0.0, 1.0)
    assert peeked != select(SELECTING, JUDGING)


def test_of_several_best_ones_each_is_as_likely() -> None:
    taken = select(np.array([9.0, 9.0, 1.0]), np.array([50.0, 30.0, 60.0]))
    assert (taken.regret, taken.rank) == (20.0, 2.5)


def test_rank_correlations_by_hand() -> None:
    # ranks 1 4 3 2 and 1 3 4 2: squares of differences 2, one of six pairs discordant
    found = rank_correlation(SELECTING, JUDGING)
    assert not isinstance(found, str)
    assert found.spearman == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert found.kendall == pytest.approx((5 - 1) / 6)
    # tau-b: of six pairs one is tied in x; 5 concordant, none discordant
    tied = rank_correlation(np.array([1.0, 1, 2, 3]), np.array([1.0, 2, 3, 4]))
    assert not isinstance(tied, str)
    assert tied.kendall == pytest.approx(5 / np.sqrt(5 * 6))


def test_without_differences_there_is_no_rank_correlation() -> None:
    assert isinstance(rank_correlation(np.ones(12), np.arange(12.0)), str)


def test_the_interval_holds_the_correlation_and_narrows_with_configurations() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for count in (12, 200):
        x = rng.normal(size=count)
        y = x + rng.normal(size=count)
        low, high = bootstrap_interval(x, y, np.random.default_rng(1))
        assert low < spearmanr(x, y).statistic < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2
    assert bootstrap_interval(np.arange(12.0), np.arange(12.0), rng) == pytest.approx((1, 1))
