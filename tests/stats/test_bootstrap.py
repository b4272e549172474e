from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from dpbench.stats import bootstrap
from dpbench.stats.bootstrap import Resampled, estimate_difference, estimate_mean, resample
from dpbench.stats.student import MeanEstimate

TRUE = 70.0
IMAGES = 400
TRIALS = 500
Bits = NDArray[np.bool_]


def simulated(
    rng: np.random.Generator, seeds: int, seed_effect: float = 0.05, image_effect: float = 0.15
) -> list[Bits]:
    """Bernoulli outcomes whose mean, over all seeds and images there might be, is ``TRUE`` %."""
    of_seed = rng.normal(0, seed_effect, (seeds, 1))
    of_image = rng.choice([-1, 1], (1, IMAGES)) * image_effect
    return list(rng.random((seeds, IMAGES)) < TRUE / 100 + of_seed + of_image)


def trials(seeds: int, **effects: float) -> list[Resampled]:
    """Independent simulations, which share the resampled images to save time."""
    rng = np.random.default_rng(seeds)
    return list(
        resample({(trial,): simulated(rng, seeds, **effects) for trial in range(TRIALS)}).values()
    )


def coverage(estimates: Sequence[MeanEstimate], true: float) -> float:
    intervals = [estimate.interval(0.95) for estimate in estimates]
    return sum(low <= true <= high for low, high in intervals) / len(intervals)


@pytest.mark.parametrize(("seeds", "least"), [(2, 0.91), (3, 0.93), (5, 0.93)])
def test_intervals_cover_as_often_as_they_say(seeds: int, least: float) -> None:
    found = coverage([estimate_mean(each) for each in trials(seeds)], TRUE)
    assert least <= found <= 0.985, found


def test_intervals_of_test_images_alone_miss_where_seeds_differ(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def of_no_seed(seeds: int, key: bootstrap.Key) -> NDArray[np.float64]:
        return np.full((bootstrap.RESAMPLES, seeds), 1 / seeds)

    monkeypatch.setattr(bootstrap, "_seed_weights", of_no_seed)
    broken = [
        MeanEstimate(float(each.seeds.mean()), float(each.resamples.std()), math.inf)
        for each in trials(3)
    ]
    assert coverage(broken, TRUE) < 0.85


def test_intervals_of_seeds_alone_miss_where_images_differ() -> None:
    """What leaderboards have of metrics that keep no outcomes: another question is answered."""
    of_few_images = trials(3, seed_effect=0.0, image_effect=0.3)
    over_seeds = [
        MeanEstimate(float(each.seeds.mean()), float(each.seeds.std(ddof=1)) / math.sqrt(3), 2)
        for each in of_few_images
    ]
    assert coverage(over_seeds, TRUE) < 0.91
    assert coverage([estimate_mean(each) for each in of_few_images], TRUE) >= 0.93


def test_one_seed_has_the_binomial_interval_over_test_images() -> None:
    right = np.arange(1000) < 800
    (found,) = resample({("once",): [right]}).values()
    low, high = estimate_mean(found).interval(0.95)
    half = 1.96 * 100 * math.sqrt(0.8 * 0.2 / 1000)
    assert (low, high) == pytest.approx((80 - half, 80 + half), abs=0.05 * half)


def test_differences_are_paired_by_test_images_and_not_by_seeds() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(IMAGES) < 0.3
    first, second = ([~hard ^ (rng.random(IMAGES) < 0.02) for _ in range(3)] for _ in range(2))
    found = resample({("first",): first, ("second",): second, ("again",): first})
    apart = [estimate_mean(each).error for each in found.values()]
    assert estimate_difference(found["first",], found["second",]).error < 0.6 * min(apart)
    copied = estimate_difference(found["first",], found["again",])
    assert copied.value == 0 and copied.error > 0, "the seeds of two methods vary by themselves"


def test_differences_of_methods_that_are_alike_are_rarely_called_real() -> None:
    rng = np.random.default_rng(3)
    pairs = {}
    for trial in range(TRIALS // 2):
        pairs[trial, "a"], pairs[trial, "b"] = simulated(rng, 3), simulated(rng, 3)
    found = resample(pairs)
    estimates = [estimate_difference(found[t, "a"], found[t, "b"]) for t in range(TRIALS // 2)]
    assert coverage(estimates, 0) >= 0.93
    assert sum(each.p_value() < 0.05 for each in estimates) / len(estimates) <= 0.07


def test_the_degrees_of_freedom_lie_between_those_of_seeds_and_of_images() -> None:
    rng = np.random.default_rng(0)
    found = resample({(trial,): simulated(rng, 3) for trial in range(20)})
    assert all(2 <= estimate_mean(each).degrees < math.inf for each in found.values())
    of_images = np.arange(IMAGES) < 100
    (same,) = resample({("same",): [of_images] * 3}).values()
    assert estimate_mean(same).degrees == math.inf, "only images vary"


def test_what_a_method_gets_does_not_depend_on_the_others() -> None:
    rng = np.random.default_rng(0)
    first, second = simulated(rng, 3), simulated(rng, 2)
    alone = resample({("first",): first})["first",]
    among = resample({("second",): second, ("first",): first})["first",]
    assert np.array_equal(alone.resamples, among.resamples)


def test_sets_of_other_sizes_are_resampled_too() -> None:
    found = resample({("few",): [np.ones(10, bool)], ("many",): [np.zeros(30, bool)]})
    assert estimate_mean(found["few",]).interval(0.95) == (100, 100)
    assert estimate_mean(found["many",]).interval(0.95) == (0, 0)


def test_no_difference_and_no_variation_have_p_values() -> None:
    assert MeanEstimate(0.0, 0.0, math.inf).p_value() == 1
    assert MeanEstimate(5.0, 0.0, math.inf).p_value() == 1, "no variation is no certainty"
    # Student's t of one degree of freedom in closed form: arctangents
    expected = 1 - 2 / math.pi * math.atan(3)
    assert MeanEstimate(-3.0, 1.0, 1).p_value() == pytest.approx(expected, rel=1e-5)


def test_test_images_are_drawn_once_for_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    honest, drawn = np.bincount, []

    def counted(places: NDArray[np.int64], minlength: int) -> NDArray[np.int64]:
        drawn.append(minlength)
        return honest(places, minlength=minlength)

    monkeypatch.setattr(np, "bincount", counted)
    rng = np.random.default_rng(0)
    resample({(row,): list(rng.random((3, 50)) < 0.8) for row in range(10)})
    assert drawn == bootstrap.RESAMPLES * [50]
