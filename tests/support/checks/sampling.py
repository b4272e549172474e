"""Checks of Poisson sampling, from what training releases."""

from __future__ import annotations

import math

import torch
from scipy import stats
from torch import Tensor

from dpbench.privacy.events import DPSGDEvent
from tests.support.checks import expect
from tests.support.private import Coordinates, OwnCoordinate, Steps, some_images

IMAGES, STEPS, RATE = 200, 200, 0.3
# probability that an honest sampler fails one of the checks, were the keys not fixed
ALPHA = 1e-5


def batches(images: int, steps: int, rate: float, noise_multiplier: float = 0.0) -> Tensor:
    """How often each image was in each batch, as training shows it: ``(steps, images)``."""
    event = DPSGDEvent(rate, noise_multiplier, 1.0, steps, "weights")
    released = Steps(Coordinates(images), OwnCoordinate(), event)(some_images(images, side=1))
    return torch.stack([step["weight"].flatten() for step in released]).double()


def two_sided(z: float) -> float:
    return float(2 * stats.norm.sf(abs(z)))


def check_sampler() -> None:
    """Each image is in each batch independently, with the public rate."""
    counts = batches(IMAGES, STEPS, RATE)
    taken = counts.round()
    assert float((counts - taken).abs().max()) < 1e-4
    expect(set(taken.flatten().tolist()) <= {0.0, 1.0}, "no image is in a batch twice")
    variance = RATE * (1 - RATE)
    z = (float(taken.sum()) - taken.numel() * RATE) / math.sqrt(taken.numel() * variance)
    expect(two_sided(z) > ALPHA, "the rate is that of the event")
    # batch sizes are binomial, and so is the number of batches that each image is in
    for sums, trials in ((taken.sum(dim=1), IMAGES), (taken.sum(dim=0), STEPS)):
        spread = float((sums - trials * RATE).square().sum()) / (trials * variance)
        tails = stats.chi2.cdf(spread, len(sums)), stats.chi2.sf(spread, len(sums))
        expect(2 * min(tails) > ALPHA, "sizes spread as binomial ones do")
    sizes = taken.sum(dim=1).numpy()
    binomial = stats.kstest(sizes, stats.binom(IMAGES, RATE).cdf).pvalue
    expect(binomial > ALPHA, "batch sizes are binomial")
    # neighbours, and images and steps further apart
    centred = (taken - RATE) / math.sqrt(variance)
    for lag in (1, 2, 7):
        for first, second in (
            (centred[lag:], centred[:-lag]),
            (centred[:, lag:], centred[:, :-lag]),
        ):
            z = float((first * second).sum()) / math.sqrt(first.numel())
            expect(two_sided(z) > ALPHA, f"images and steps {lag} apart are independent")


def check_empty_batches() -> None:
    """Batches are empty as often as they should be, and get noise like any other."""
    steps, rate, sigma = 150, 0.02, 0.1
    counts = batches(20, steps, rate, sigma)
    assert len(counts) == steps
    empty = counts.abs().max(dim=1).values < 0.5
    often = stats.binomtest(int(empty.sum()), steps, (1 - rate) ** 20).pvalue
    expect(often > ALPHA, "batches are empty as often as Poisson sampling makes them")
    noise = counts[empty]
    expect(bool((noise != 0).all()), "an empty batch is released with noise")
    scale = float(noise.square().mean().sqrt())
    expect(abs(scale / sigma - 1) < 0.1, "its noise has the usual scale")
