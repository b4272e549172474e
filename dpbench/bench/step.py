"""A private training step next to the same step without privacy, engine by engine.

Both draw the same copies and take them through the network in the same physical batches on the same
cores; the private ones clip each example's gradient, the other adds up plain gradients.
"""

from __future__ import annotations

import itertools
import multiprocessing
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpbench.api.method import Workload
from dpbench.bench.timing import SHORTEST_SECONDS, Timed, reason_of, side_by_side
from dpbench.bench.workloads import check, chosen, chosen_precisions, device_of, random_images
from dpbench.core.images import Precision
from dpbench.core.progress import Progress, Task, duration
from dpbench.parallel.cores import core_count
from dpbench.parallel.device import peak_memory_mb
from dpbench.privacy import clipping
from dpbench.privacy.clipping import ENGINES, Engine, Objective, engine, trainable
from dpbench.privacy.clipping.selection import copies_at_once
from dpbench.privacy.dpsgd import gradient_sum

YARDSTICK = "nonprivate"
ALL_ENGINES = (YARDSTICK, *ENGINES)
MULTIPLICITIES = (1, 8, 32)
CLIPPING_NORM = 1.0
# What torch says, at every step, of how Opacus hooks into the backward pass.
_HOOKS = "Full backward hook is firing"
# What the engines take on average, in steps without privacy: only for the estimate.
_TYPICAL_COST = 2.0


@dataclass(frozen=True)
class Case:
    """What the engines are compared on.

    Attributes:
        network: Its name.
        multiplicity: K.
        precision: Of the forward pass.
        copies: That a step takes (images x K), at least one image: the logical batch times K.
    """

    network: str
    multiplicity: int
    precision: Precision
    copies: int

    @property
    def images(self) -> int:
        """Images of a step."""
        return max(1, self.copies // self.multiplicity)


@dataclass(frozen=True)
class Row:
    """One engine on one network.

    Attributes:
        network: Its name.
        parameters: Trainable ones.
        multiplicity: K.
        precision: Of the forward pass.
        engine: ``nonprivate`` or an engine of ``dpbench.privacy.clipping``.
        copies: That a step takes (images x K): the logical batch times K.
        images_per_s: Copies a second, the median of the repeats.
        images_per_s_low: The slowest.
        images_per_s_high: The fastest.
        ratio: Speed over that of ``nonprivate``, the median of the repeats' ratios.
        peak_mb: Memory of a step on top of what the process held before, in a process of its own.
        reason: Why there are no numbers; ``""`` where there are.
    """

    network: str
    parameters: int
    multiplicity: int
    precision: Precision
    engine: str
    copies: int
    images_per_s: float | None = None
    images_per_s_low: float | None = None
    images_per_s_high: float | None = None
    ratio: float | None = None
    peak_mb: float | None = None
    reason: str = ""


def nonprivate(
    model: nn.Module, objective: Objective, copies: tuple[Tensor, ...], clipping_norm: float
) -> dict[str, Tensor]:
    """The gradient of the summed losses, as an engine: nothing is clipped."""
    parameters = trainable(model)
    total = objective.loss(model, *copies).sum()
    gradients = torch.autograd.grad(total, list(parameters.values()))
    return dict(zip(parameters, gradients, strict=True))


def bench_step(
    networks: Sequence[str],
    multiplicities: Sequence[int],
    precisions: Sequence[str],
    engines: Sequence[str],
    copies: Sequence[int],
    repeats: int,
    device_name: str,
    progress: Progress,
) -> list[Row]:
    """Time every engine on every network.

    Args:
        networks: Their names; none for the quick ones.
        multiplicities: Values of K; none for ``MULTIPLICITIES``.
        precisions: Of the forward pass; none for both.
        engines: Their names; none for all. The yardstick is always there.
        copies: That a step takes; none for a physical batch on every core.
        repeats: Timed steps, after one to warm up.
        device_name: Where to compute.
        progress: Who is told.

    Returns:
        A row for each combination; where an engine cannot do a network, one with the reason.

    Raises:
        UserError: An unknown network, precision, engine or device.
    """
    loads, device = chosen(networks), device_of(device_name)
    check("engine", engines, ALL_ENGINES)
    engines = tuple(dict.fromkeys((YARDSTICK, *(engines or ENGINES))))
    cases = itertools.product(
        multiplicities or MULTIPLICITIES,
        chosen_precisions(precisions),
        copies or [copies_at_once(device) * (core_count() if device.type == "cpu" else 1)],
    )
    by_case = {Case(load.name, *each): load for load, each in itertools.product(loads, cases)}
    steps = len(by_case) * len(engines) * (repeats + 2)  # one to see the memory, one to warm up
    speeds = {load.name: _copies_per_second(load, device) for load in loads}
    seconds = sum(
        max(_TYPICAL_COST * case.copies / speeds[case.network], SHORTEST_SECONDS)
        for case in by_case
    )
    estimate = duration(seconds * len(engines) * (repeats + 2))
    progress.note(f"{len(by_case) * len(engines)} rows, about {estimate} in all")
    with progress.task("timing", steps, "steps") as task, warnings.catch_warnings():
        warnings.filterwarnings("ignore", _HOOKS)
        return [
            row
            for case, load in by_case.items()
            for row in _rows(case, load, engines, repeats, device, task)
        ]


def _copies_per_second(load: Workload, device: torch.device) -> float:
    """The speed of the yardstick, from two short steps: only for the estimate."""
    case = Case(load.name, 1, "float32", 8)
    step = _step(load, case, YARDSTICK, device)
    step()
    started = time.perf_counter()
    step()
    return case.copies / (time.perf_counter() - started)


def _rows(
    case: Case,
    load: Workload,
    engines: tuple[str, ...],
    repeats: int,
    device: torch.device,
    task: Task,
) -> list[Row]:
    peaks: dict[str, float] = {}
    timed: dict[str, Timed] = {}
    for name in engines:
        try:
            peaks[name] = _in_new_process(_peak_mb, case, name, str(device))
        except Exception as error:  # one that cannot do it, or had no memory, is not tried here
            timed[name] = Timed(reason=reason_of(error))
            task.advance(repeats + 1)
        task.advance(1, f"{case.network}, K = {case.multiplicity}, {name}")
    able = {name: _step(load, case, name, device) for name in peaks}
    timed |= side_by_side(able, repeats, task)
    parameters = sum(p.numel() for p in trainable(load.build(1, case.precision)[0]).values())
    copies = case.images * case.multiplicity
    rows = []
    for name in engines:
        rate = timed[name].rate(copies)
        rows.append(
            Row(
                case.network,
                parameters,
                case.multiplicity,
                case.precision,
                name,
                copies,
                images_per_s=rate.median if rate else None,
                images_per_s_low=rate.low if rate else None,
                images_per_s_high=rate.high if rate else None,
                ratio=timed[name].ratio(timed[YARDSTICK]),
                peak_mb=peaks.get(name),
                reason=timed[name].reason,
            )
        )
    return rows


def _step(load: Workload, case: Case, name: str, device: torch.device) -> Callable[[], None]:
    """A step that can be taken again and again: the gradient sum of one logical batch."""
    model, objective = load.build(case.multiplicity, case.precision)
    model.to(device)
    images = random_images(load, case.images)
    batch = torch.arange(case.images)
    method: Engine = nonprivate if name == YARDSTICK else engine(name)
    size = max(1, copies_at_once(device) // case.multiplicity)

    def draws(chunk: int) -> torch.Generator:
        return torch.Generator(device).manual_seed(chunk)

    def step() -> None:
        sums = gradient_sum(
            *(model, objective, images, batch, CLIPPING_NORM, draws), clipped=method, size=size
        )
        next(iter(sums.values())).sum().item()  # waits for the device

    return step


def _peak_mb(case: Case, name: str, device_name: str) -> float:
    """Memory of one step; right in a new process only, since peaks are of a process' whole life."""
    warnings.filterwarnings("ignore", _HOOKS)
    device = device_of(device_name)
    (load,) = chosen([case.network])
    # what is imported and kept from the first step on is no part of a step
    _step(load, Case(case.network, 1, case.precision, 1), name, device)()
    step = _step(load, case, name, device)
    before = peak_memory_mb(device)
    step()
    return peak_memory_mb(device) - before


def _in_new_process(function: Callable[..., float], *arguments: object) -> float:
    """Call in a process that has imported torch and done nothing yet."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *(f"{clipping.__name__}.{name}" for name in ENGINES)])
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(function, *arguments).result()
