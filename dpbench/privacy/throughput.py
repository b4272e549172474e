"""Throughput of training steps, which the probes of a plan's stages measure."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn

from dpbench.core.cache import user_cache
from dpbench.core.images import Images
from dpbench.parallel.cores import core_count
from dpbench.privacy.clipping import Objective, engine
from dpbench.privacy.clipping.selection import AUTO, choose
from dpbench.privacy.dpsgd import gradient_sum
from dpbench.privacy.mechanisms import PrivateSetInfo

# Stop once a step takes this long (s). Batches grow fourfold, so a probe takes about 1.3x its last
# step.
LONG_ENOUGH = 0.5


def private_speed(
    model: nn.Module, objective: Objective, info: PrivateSetInfo, clipping_norm: float
) -> float:
    """Gradient evaluations per second of the private step, on black images.

    Args:
        model: Network, on the device to compute on; not changed.
        objective: Training loss.
        info: Public facts about the private set, here the shape of its images.
        clipping_norm: Clipping norm C, above 0.
    """
    execution = choose(model, objective, info.spec, AUTO, user_cache())
    images = blank_images(info, core_count() * execution.physical_batch)
    rng = torch.Generator(next(model.parameters()).device).manual_seed(0)

    def step(count: int) -> None:
        sums = gradient_sum(
            model,
            objective,
            images,
            torch.arange(count),
            clipping_norm=clipping_norm,
            draws=lambda chunk: rng,
            clipped=engine(execution.engine),
            # small enough to give every core work
            size=max(1, min(execution.physical_batch, count // core_count())),
        )
        next(iter(sums.values())).sum().item()  # waits for the device

    return objective.multiplicity * examples_per_second(step, len(images))


def examples_per_second(step: Callable[[int], None], full: int) -> float:
    """Examples per second of a training step.

    After a small batch to warm up, batches grow fourfold until one is full or takes
    ``LONG_ENOUGH``.

    Args:
        step: Takes a step on a given number of examples.
        full: Number of examples in a full batch.
    """
    examples = min(2, full)  # normalisation over a batch needs at least 2 examples
    step(examples)
    while True:
        examples = min(4 * examples, full)
        started = time.perf_counter()
        step(examples)
        seconds = time.perf_counter() - started
        if examples == full or seconds > LONG_ENOUGH:
            return examples / seconds


def blank_images(info: PrivateSetInfo, count: int) -> Images:
    """Black images of class 0, to time a step on."""
    return Images(
        torch.zeros(count, *info.spec.shape, dtype=torch.uint8),
        torch.zeros(count, dtype=torch.int64),
    )
