"""How fast a training step is: what the stages of a plan give as their ``probe``."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn

from dpbench.core.images import Images
from dpbench.parallel.cores import core_count
from dpbench.privacy.clipping import Objective, engine
from dpbench.privacy.clipping.selection import AUTO, choose, engine_cache
from dpbench.privacy.dpsgd import gradient_sum
from dpbench.privacy.mechanisms import PrivateSetInfo

# Seconds; the step before took about a quarter of it, so that a probe takes a few times as long.
LONG_ENOUGH = 0.5


def private_speed(
    model: nn.Module, objective: Objective, info: PrivateSetInfo, clipping_norm: float
) -> float:
    """Gradient evaluations per second of the private step, on black images.

    Args:
        model: On the device to compute on; left as it is.
        objective: Loss and multiplicity.
        info: Gives the shape of the images.
        clipping_norm: C.
    """
    execution = choose(model, objective, info.spec, AUTO, engine_cache())
    images = blank_images(info, core_count() * execution.physical_batch)
    rng = torch.Generator(next(model.parameters()).device).manual_seed(0)

    def step(count: int) -> None:
        sums = gradient_sum(
            model,
            objective,
            images,
            torch.arange(count),
            clipping_norm,
            lambda chunk: rng,
            clipped=engine(execution.engine),
            # small enough that every core has work
            size=max(1, min(execution.physical_batch, count // core_count())),
        )
        next(iter(sums.values())).sum().item()  # waits for the device

    return objective.multiplicity * examples_per_second(step, len(images))


def examples_per_second(step: Callable[[int], None], full: int) -> float:
    """The speed of a training step.

    A small batch comes first, to warm up; then larger ones, until one is full or takes a while.

    Args:
        step: Takes a step on a number of examples.
        full: Number of examples of a usual batch.
    """
    examples = min(2, full)  # normalisation over a batch has nothing to do in one of 1
    step(examples)
    while True:
        examples = min(4 * examples, full)
        started = time.perf_counter()
        step(examples)
        seconds = time.perf_counter() - started
        if examples == full or seconds > LONG_ENOUGH:
            return examples / seconds


def blank_images(info: PrivateSetInfo, count: int) -> Images:
    """Black images of the first class, to time a step on."""
    return Images(
        torch.zeros(count, *info.spec.shape, dtype=torch.uint8),
        torch.zeros(count, dtype=torch.int64),
    )
