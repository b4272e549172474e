"""Intervals over seeds hold the method's mean where every seed has public weights of its own.

A run's accuracy is the method's, plus what its public weights do to it, plus what private training
does. Where all seeds start from one draw of public weights, their spread does not show its effect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from dpbench.stats.bootstrap import estimate_mean, resample
from dpbench.stats.student import MeanEstimate

TRUE = 70.0
SEEDS, IMAGES, TRIALS = 5, 1000, 400
# standard deviations, as shares of the test images
PUBLIC, PRIVATE = 0.03, 0.015


def accuracies(rng: np.random.Generator, shared: bool) -> NDArray[np.float64]:
    """True accuracies of the seeds, ``(SEEDS, 1)``, as shares."""
    public = rng.normal(0, PUBLIC, (1 if shared else SEEDS, 1))
    found: NDArray[np.float64] = TRUE / 100 + public + rng.normal(0, PRIVATE, (SEEDS, 1))
    return found


def coverage(estimates: Sequence[MeanEstimate]) -> float:
    intervals = [estimate.interval(0.95) for estimate in estimates]
    return sum(low <= TRUE <= high for low, high in intervals) / len(intervals)


def over_seeds(shared: bool) -> float:
    """Coverage of Student's intervals."""
    rng = np.random.default_rng(0)
    runs = [100 * accuracies(rng, shared)[:, 0] for _ in range(TRIALS)]
    return coverage([MeanEstimate.of(each.tolist()) for each in runs])


def over_seeds_and_images(shared: bool) -> float:
    """Coverage of the bootstrap's intervals."""
    rng = np.random.default_rng(1)
    trials = {
        (trial,): list(rng.random((SEEDS, IMAGES)) < accuracies(rng, shared))
        for trial in range(TRIALS)
    }
    return coverage([estimate_mean(each) for each in resample(trials).values()])


@pytest.mark.parametrize("covered", [over_seeds, over_seeds_and_images])
def test_intervals_hold_the_methods_mean_if_every_seed_has_its_own_public_weights(
    covered: Callable[[bool], float],
) -> None:
    assert 0.93 <= covered(False) <= 0.99


@pytest.mark.parametrize("covered", [over_seeds, over_seeds_and_images])
def test_they_do_not_if_one_draw_of_public_weights_is_shared(
    covered: Callable[[bool], float],
) -> None:
    assert covered(True) < 0.8
