"""How fast a training step is: what the stages of a plan give as their ``probe``."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn

from dpbench.cores import core_count
from dpbench.privacy.clipping import Objective, engine
from dpbench.privacy.dpsgd import gradient_sum
from dpbench.privacy.execution import AUTO, choose, engine_cache
from dpbench.privacy.private_images import PrivateSetInfo
from dpbench.types import Images


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
    examples = core_count() * execution.physical_batch
    images = blank_images(info, examples)
    rng = torch.Generator(next(model.parameters()).device).manual_seed(0)

    def step(count: int) -> None:
        sums = gradient_sum(
            model,
            objective,
            images,
            torch.arange(max(1, count // objective.multiplicity)),
            clipping_norm,
            lambda chunk: rng,
            clipped=engine(execution.engine),
            size=execution.physical_batch,
        )
        next(iter(sums.values())).sum().item()  # waits for the device

    return copies_per_second(step, examples * objective.multiplicity)


def copies_per_second(step: Callable[[int], None], full: int) -> float:
    """The speed of a training step.

    A few copies come first, to warm up; then a full batch only where that takes about a second.

    Args:
        step: Takes a step on a number of copies.
        full: Number of copies of a usual batch.
    """
    speed = 0.0
    for copies in (8, 8, full):
        if 0 < speed < full / 4:
            break
        started = time.perf_counter()
        step(copies)
        speed = copies / (time.perf_counter() - started)
    return speed


def blank_images(info: PrivateSetInfo, count: int) -> Images:
    """Black images of the first class, to time a step on."""
    return Images(
        torch.zeros(count, *info.spec.shape, dtype=torch.uint8),
        torch.zeros(count, dtype=torch.int64),
    )
