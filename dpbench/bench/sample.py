"""Time sampling against its network evaluations alone.

The sampler runs as it does in a run, and the inputs of every forward pass are recorded. The
yardstick repeats these forward passes on the same cores, without noise, solver or conversion to
pixels.
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
class SamplingTiming:
    """One solver on one network.

    Attributes:
        network: Name of the network.
        solver: Name of the solver.
        precision: Precision of the forward pass.
        images: Images drawn in one call.
        evaluations: Network evaluations per image.
        images_per_s: Images sampled per second, median over the repeats.
        images_per_s_low: Slowest repeat.
        images_per_s_high: Fastest repeat.
        forward_only_images_per_s: Images per second with the forward passes alone.
        ratio: Sampling speed over forward-only speed, median over the repeats.
        reason: Why the timing failed; ``""`` if it did not.
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
) -> list[SamplingTiming]:
    """Time every sampler of the chosen networks.

    Args:
        networks: Names of networks; the quick ones if empty.
        precisions: Precisions of the forward pass; both if empty.
        images: Images to draw in one call.
        repeats: Timed draws, after one warm-up.
        device_name: Device to compute on.
        progress: Receives progress updates.

    Raises:
        UserError: A network, precision or device is unknown, or none of the networks draws images.
    """
    device = device_of(device_name)
    cases = [
        (load, solver, precision)
        for load, precision in itertools.product(chosen(networks), chosen_precisions(precisions))
        for solver in load.samplers
    ]
    if not cases:
        raise UserError(f"{', '.join(networks)}: none of these networks draws images")
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
) -> SamplingTiming:
    model = load.build(1, precision)[0].to(device)
    sampler = load.samplers[solver](model)
    labels = uniform_labels(images, load.classes)

    def draw() -> None:
        sampler.sample(labels, torch.Generator(device).manual_seed(0))

    calls = _calls(model, draw)

    @torch.no_grad()  # here because the setting is per thread
    def forward(inputs: tuple[Any, ...]) -> Tensor:
        result: Tensor = model(*inputs)
        return result

    def evaluate() -> None:
        *_, last = map_on_cores(forward, calls, device)
        last.sum().item()  # waits for the device

    timed = side_by_side({load.name: draw, FORWARD_ONLY: evaluate}, repeats, task)
    sampling, forward_only = timed[load.name], timed[FORWARD_ONLY]
    rate, yardstick = sampling.rate(images), forward_only.rate(images)
    return SamplingTiming(
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
    """Inputs of every forward pass of ``model`` during ``draw``."""
    calls: list[tuple[Any, ...]] = []
    handle = model.register_forward_pre_hook(lambda module, inputs: calls.append(inputs))
    draw()
    handle.remove()
    return calls
