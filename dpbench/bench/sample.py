"""Sampling next to nothing but the network evaluations that it consists of.

The sampler runs as it does in a run, and every call that it makes of its model is noted. The
yardstick makes the same calls again, with the same inputs and on the same cores, one after another
wherever a core is free: no noise, no solver, no conversion to pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dpbench.api.method import Workload, uniform_labels
from dpbench.bench.timing import side_by_side
from dpbench.bench.workloads import chosen, chosen_precisions, device_of
from dpbench.core.errors import UserError
from dpbench.core.images import Precision
from dpbench.core.progress import Progress, Task
from dpbench.parallel.cores import map_on_cores

FORWARD_ONLY = "forward only"


@dataclass(frozen=True)
class Row:
    """One solver on one network.

    Attributes:
        network: Its name.
        solver: Its name.
        precision: Of the forward pass.
        images: Drawn at a time.
        evaluations: Of the network, for each image.
        images_per_s: Drawn images a second, the median of the repeats.
        images_per_s_low: The slowest.
        images_per_s_high: The fastest.
        forward_only_images_per_s: The same with nothing but the evaluations.
        ratio: Speed of sampling over that, the median of the repeats' ratios.
        reason: Why there are no numbers; ``""`` where there are.
    """

    network: str
    solver: str
    precision: Precision
    images: int
    evaluations: float
    images_per_s: float | None = None
    images_per_s_low: float | None = None
    images_per_s_high: float | None = None
    forward_only_images_per_s: float | None = None
    ratio: float | None = None
    reason: str = ""


def bench_sample(
    networks: Sequence[str],
    precisions: Sequence[str],
    images: int,
    repeats: int,
    device_name: str,
    progress: Progress,
) -> list[Row]:
    """Time the samplers of every network that has some.

    Args:
        networks: Their names; none for the quick ones.
        precisions: Of the forward pass; none for both.
        images: To draw at a time.
        repeats: Timed draws, after one to warm up.
        device_name: Where to compute.
        progress: Who is told.

    Raises:
        UserError: An unknown network, precision or device, or no network that draws images.
    """
    device = device_of(device_name)
    cases = [
        (load, solver, precision)
        for load, precision in itertools.product(chosen(networks), chosen_precisions(precisions))
        for solver in load.samplers
    ]
    if not cases:
        raise UserError(f"{', '.join(networks)}: no network that draws images")
    with progress.task("timing", len(cases) * 2 * (repeats + 1), "draws") as task:
        return [
            _row(load, solver, precision, images, repeats, device, task)
            for load, solver, precision in cases
        ]


def _row(
    load: Workload,
    solver: str,
    precision: Precision,
    images: int,
    repeats: int,
    device: torch.device,
    task: Task,
) -> Row:
    model = load.build(1, precision)[0].to(device)
    sampler = load.samplers[solver](model)
    labels = uniform_labels(images, load.classes)

    def draw() -> None:
        sampler.sample(labels, torch.Generator(device).manual_seed(0))

    calls = _calls(model, draw)

    @torch.no_grad()  # here, because it holds for the calling thread only
    def forward(inputs: tuple[Any, ...]) -> Tensor:
        result: Tensor = model(*inputs)
        return result

    def evaluate() -> None:
        *_, last = map_on_cores(forward, calls, device)
        last.sum().item()  # waits for the device

    timed = side_by_side({load.name: draw, FORWARD_ONLY: evaluate}, repeats, task)
    sampling, forward_only = timed[load.name], timed[FORWARD_ONLY]
    rate, yardstick = sampling.rate(images), forward_only.rate(images)
    return Row(
        load.name,
        solver,
        precision,
        images,
        sum(len(inputs[0]) for inputs in calls) / images,
        images_per_s=rate.median if rate else None,
        images_per_s_low=rate.low if rate else None,
        images_per_s_high=rate.high if rate else None,
        forward_only_images_per_s=yardstick.median if yardstick else None,
        ratio=sampling.ratio(forward_only),
        reason=sampling.reason or forward_only.reason,
    )


def _calls(model: nn.Module, draw: Callable[[], None]) -> list[tuple[Any, ...]]:
    """The inputs of every call of ``model`` while something is drawn."""
    calls: list[tuple[Any, ...]] = []
    handle = model.register_forward_pre_hook(lambda module, inputs: calls.append(inputs))
    draw()
    handle.remove()
    return calls
