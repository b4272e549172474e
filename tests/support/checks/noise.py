"""Checks of the noise of private training, and of the average of weights that it releases."""

from __future__ import annotations

import itertools
import math
import tempfile
from pathlib import Path

import torch
from scipy import stats
from torch import Tensor

from dpbench.core.progress import Silent
from dpbench.core.streams import Streams
from dpbench.privacy.clipping.selection import Execution
from dpbench.privacy.dpsgd import Learner
from dpbench.privacy.events import DPSGDEvent
from dpbench.training.averaging import ExponentialAverage
from dpbench.training.loop import Stage
from tests.support.checks import expect, expect_close
from tests.support.private import (
    KEY,
    Decided,
    Gradients,
    Layers,
    Nothing,
    Steps,
    flat,
    handle,
    some_images,
)

STEPS, SIGMA, CLIPPING_NORM = 8, 2.5, 0.3
# probability that an honest mechanism leaves an interval, were the keys not fixed
ALPHA = 1e-5


def released_noise(
    purpose: str = "weights", steps: int = STEPS, streams: Streams | None = None
) -> list[Gradients]:
    event = DPSGDEvent(0.1, SIGMA, CLIPPING_NORM, steps, purpose)
    # the engine has no part in noise, and the folded one does not know bare parameters
    return Steps(Layers(), Nothing(), event, engine="vmap")(some_images(40), streams=streams)


def expect_gaussian(sample: Tensor, scale: float) -> None:
    """The standard deviation is ``scale``, and the shape is normal out to the tail.

    A tail that is cut off, or values of few digits, leave the rest as it is and void the claim.
    """
    values = sample.double().flatten()
    count, total = len(values), float(values.square().sum())
    low = math.sqrt(total / stats.chi2.ppf(1 - ALPHA / 2, count))
    high = math.sqrt(total / stats.chi2.ppf(ALPHA / 2, count))
    expect(low <= scale <= high, f"the noise has the standard deviation {scale}")
    if count > 500_000:
        assert high / low < 1.01, "the interval is too wide to see 1%"
    pvalue = stats.kstest(values[:100_000].numpy() / scale, "norm").pvalue
    expect(pvalue > ALPHA, "the noise is normal")
    for sigmas in (3, 4):
        beyond = int((values.abs() > sigmas * scale).sum())
        pvalue = stats.binomtest(beyond, count, 2 * stats.norm.sf(sigmas)).pvalue
        expect(pvalue > ALPHA, f"the noise is normal beyond {sigmas} standard deviations")
    # of a million values of 24 bits some hundredth are equal to another one
    expect(len(values.unique()) > 0.9 * count, "the noise has all its digits")


def expect_unrelated(first: Tensor, second: Tensor) -> None:
    first, second = first.double().flatten(), second.double().flatten()
    correlation = float(first @ second / (first.norm() * second.norm()))
    expect(abs(correlation) * math.sqrt(len(first)) < 5, "two draws of noise are independent")


def check_noise() -> None:
    """Gradients are zero, so what is released is noise: right in scale, and never used twice."""
    released = released_noise()
    assert len(released) == STEPS
    for name in released[0]:
        everything = torch.stack([step[name] for step in released])
        expect_gaussian(everything, SIGMA * CLIPPING_NORM)
    other_purpose = released_noise("other weights", steps=1)
    expect_unrelated(flat(released[0]), flat(other_purpose[0]))
    for first, second in itertools.combinations(released, 2):
        expect_unrelated(flat(first), flat(second))
    for step in released:
        for one, other in itertools.combinations(step.values(), 2):
            shorter = min(one.numel(), other.numel())
            if shorter > 1000:
                expect_unrelated(one.flatten()[:shorter], other.flatten()[:shorter])


def check_noise_is_secret() -> None:
    """The published seed says nothing about the noise; the key says everything."""
    noise = {
        (seed, key): flat(released_noise(steps=1, streams=Streams(seed, key))[0])
        for seed, key in itertools.product((0, 1), (KEY, bytes(32)))
    }
    expect(torch.equal(noise[0, KEY], noise[1, KEY]), "the noise does not depend on the seed")
    expect_unrelated(noise[0, KEY], noise[0, bytes(32)])


def check_average() -> None:
    """The average that is released follows the weights with noise, and nothing else."""
    model, decay = Layers(), 0.8
    learner = Learner(
        model, torch.optim.SGD(model.parameters(), lr=1.0), ExponentialAverage(model, decay)
    )
    expected = torch.zeros(sum(p.numel() for p in model.parameters()))
    updates = 0

    def follow(*_: object) -> None:
        nonlocal expected, updates
        updates += 1
        keep = min(decay, (1 + updates) / (10 + updates))
        weights = torch.cat([p.detach().flatten() for p in model.parameters()])
        expected = keep * expected + (1 - keep) * weights

    learner.optimizer.register_step_post_hook(follow)
    event = DPSGDEvent(0.1, SIGMA, CLIPPING_NORM, STEPS, "weights")
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage("training", Path(folder) / "private.stage", Silent())
        private = handle(some_images(40), executions=Decided(Execution("vmap", 128)))
        private.dp_sgd(learner, Nothing(), event, stage)
    learner.average.copy_to(model)
    released = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert updates == STEPS
    expect_close(released, expected, 1.3e-6, 1e-5, "the average is that of the weights with noise")
    assert float(released.norm()) > 0
