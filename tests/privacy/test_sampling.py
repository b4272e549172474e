from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from dpbench.core.streams import Streams
from dpbench.privacy import dpsgd
from dpbench.privacy.events import DPSGDEvent
from dpbench.privacy.sampling import poisson_sample
from tests.support import broken
from tests.support.private import KEY, Coordinates, OwnCoordinate, Steps, some_images

IMAGES, STEPS, RATE = 200, 200, 0.3
# chance of an honest sampler to fail one of the checks, were the keys not fixed
ALPHA = 1e-5


def batches(images: int, steps: int, rate: float, noise_multiplier: float = 0.0) -> Tensor:
    """How often each image was in each batch, as training shows it: ``(steps, images)``."""
    event = DPSGDEvent(rate, noise_multiplier, 1.0, steps, "weights")
    released = Steps(Coordinates(images), OwnCoordinate(), event)(some_images(images, side=1))
    return torch.stack([step["weight"] for step in released]).double()


def two_sided(z: float) -> float:
    return float(2 * stats.norm.sf(abs(z)))


def check_sampler() -> None:
    counts = batches(IMAGES, STEPS, RATE)
    taken = counts.round()
    assert float((counts - taken).abs().max()) < 1e-4
    assert set(taken.flatten().tolist()) <= {0.0, 1.0}  # nobody twice
    variance = RATE * (1 - RATE)
    # the rate, over all
    z = (float(taken.sum()) - taken.numel() * RATE) / math.sqrt(taken.numel() * variance)
    assert two_sided(z) > ALPHA
    # batch sizes are binomial, and so is the number of batches that each image is in
    for sums, trials in ((taken.sum(dim=1), IMAGES), (taken.sum(dim=0), STEPS)):
        spread = float((sums - trials * RATE).square().sum()) / (trials * variance)
        assert 2 * min(stats.chi2.cdf(spread, len(sums)), stats.chi2.sf(spread, len(sums))) > ALPHA
    assert stats.kstest(taken.sum(dim=1).numpy(), stats.binom(IMAGES, RATE).cdf).pvalue > ALPHA
    # images and steps are independent: neighbours, and those further apart
    centred = (taken - RATE) / math.sqrt(variance)
    for lag in (1, 2, 7):
        for first, second in (
            (centred[lag:], centred[:-lag]),
            (centred[:, lag:], centred[:, :-lag]),
        ):
            assert two_sided(float((first * second).sum()) / math.sqrt(first.numel())) > ALPHA


def test_each_image_is_in_each_batch_independently_at_the_public_rate() -> None:
    check_sampler()


@pytest.mark.parametrize(
    "twin",
    [
        broken.sampling.shuffles,
        broken.sampling.replaces,
        broken.sampling.samples_too_often,
        broken.sampling.favours_some,
        broken.sampling.takes_neighbours_together,
        broken.sampling.takes_the_first_batch_again,
    ],
)
def test_looking_at_the_batches_catches(
    twin: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dpsgd, "poisson_sample", twin)
    with pytest.raises(AssertionError):
        check_sampler()


def check_empty_batches() -> None:
    """Batches are empty as often as they should be, and get noise like any other."""
    steps, rate, sigma = 150, 0.02, 0.1
    counts = batches(20, steps, rate, sigma)
    assert len(counts) == steps
    empty = counts.abs().max(dim=1).values < 0.5
    expected = (1 - rate) ** 20
    assert stats.binomtest(int(empty.sum()), steps, expected).pvalue > ALPHA
    noise = counts[empty]
    assert bool((noise != 0).all())
    assert float(noise.square().mean().sqrt()) == pytest.approx(sigma, rel=0.1)


def test_an_empty_batch_is_a_step_like_any_other() -> None:
    check_empty_batches()


@pytest.mark.parametrize("twin", [broken.sampling.never_empty, broken.sampling.shuffles])
def test_counting_empty_batches_catches(
    twin: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dpsgd, "poisson_sample", twin)
    with pytest.raises(AssertionError):
        check_empty_batches()


def test_a_step_over_no_images_at_all_is_noise() -> None:
    event = DPSGDEvent(0.5, 1.0, 1.0, 3, "weights")
    released = Steps(Coordinates(4), OwnCoordinate(), event)(some_images(0))
    assert len(released) == 3
    assert all(bool((step["weight"] != 0).all()) for step in released)


@pytest.mark.parametrize("rate, size", [(0.0, 0), (1.0, 50)])
def test_the_ends_of_the_range_take_nobody_and_everybody(rate: float, size: int) -> None:
    batch = poisson_sample(Streams(0, KEY).secret("poisson"), 50, rate)
    assert batch.dtype == torch.int64
    assert batch.tolist() == list(range(size))


def test_one_image_less_at_the_end_changes_nobody_elses_place() -> None:
    def draw(population: int) -> np.ndarray:
        return poisson_sample(Streams(0, KEY).secret("poisson", 3), population, 0.4).numpy()

    assert np.array_equal(draw(99), draw(100)[draw(100) < 99])
