"""Time a private training step against the same step without privacy, engine by engine.

Both draw the same copies and compute gradients in the same physical batches on the same cores. The
private engines clip each example's gradient; the yardstick sums plain gradients.
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
from dpbench.bench.timing import SHORTEST_SECONDS, Timed, side_by_side
from dpbench.bench.workloads import check, chosen, chosen_precisions, device_of, random_images
from dpbench.core.errors import described
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
# torch warns at every step about how Opacus hooks into the backward pass
_HOOKS = "Full backward hook is firing"
# Average cost of an engine in non-private steps; used for the time estimate only
_TYPICAL_COST = 2.0


@dataclass(frozen=True)
class Case:
    """What the engines are compared on.

    Attributes:
        network: Name of the network.
        multiplicity: Noise multiplicity K.
        precision: Precision of the forward pass.
        copies: Copies per step (images x K); at least one image.
    """

    network: str
    multiplicity: int
    precision: Precision
    copies: int

    @property
    def images(self) -> int:
        """Images per step."""
        return max(1, self.copies // self.multiplicity)


@dataclass(frozen=True)
class StepTiming:
    """One engine on one network.

    Attributes:
        network: Name of the network.
        parameters: Number of trainable parameters.
        multiplicity: Noise multiplicity K.
        precision: Precision of the forward pass.
        engine: ``nonprivate`` or an engine of ``dpbench.privacy.clipping``.
        copies: Copies per step (images x K).
        images_per_s: Copies per second, median over the repeats.
        images_per_s_low: Slowest repeat.
        images_per_s_high: Fastest repeat.
        ratio: Speed relative to ``nonprivate``, median over the repeats.
        peak_mb: Peak memory that a step adds, MiB, measured in a process of its own.
        reason: Why the timing failed; ``""`` if it did not.
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
    """Engine without clipping: the gradient of the summed losses."""
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
) -> list[StepTiming]:
    """Time every engine on every network.

    Args:
        networks: Names of networks; the quick ones if empty.
        multiplicities: Values of K; ``MULTIPLICITIES`` if empty.
        precisions: Precisions of the forward pass; both if empty.
        engines: Names of engines; all if empty. The yardstick is always timed.
        copies: Copies per step; one physical batch per core if empty.
        repeats: Timed steps, after one warm-up.
        device_name: Device to compute on.
        progress: Receives progress updates.

    Returns:
        A row for each combination; a row with a reason where an engine refuses a network.

    Raises:
        UserError: A network, precision, engine or device is unknown.
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
    steps = len(by_case) * len(engines) * (repeats + 2)  # one to measure memory, one to warm up
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
    """Rough speed of the yardstick, from two short steps, for the time estimate."""
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
) -> list[StepTiming]:
    peaks: dict[str, float] = {}
    timed: dict[str, Timed] = {}
    for name in engines:
        try:
            peaks[name] = _in_new_process(_peak_mb, case, name, str(device))
        except Exception as error:  # an engine that refuses, or runs out of memory, is not timed
            timed[name] = Timed(reason=described(error))
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
            StepTiming(
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
    """A repeatable step: the gradient sum of one logical batch."""
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
            model,
            objective,
            images,
            batch,
            clipping_norm=CLIPPING_NORM,
            draws=draws,
            clipped=method,
            size=size,
        )
        next(iter(sums.values())).sum().item()  # waits for the device

    return step


def _peak_mb(case: Case, name: str, device_name: str) -> float:
    """Memory of one step; valid in a new process only, since peaks cover a process's lifetime."""
    warnings.filterwarnings("ignore", _HOOKS)
    device = device_of(device_name)
    (load,) = chosen([case.network])
    # imports and caches of the first step do not count
    _step(load, Case(case.network, 1, case.precision, 1), name, device)()
    step = _step(load, case, name, device)
    before = peak_memory_mb(device)
    step()
    return peak_memory_mb(device) - before


def _in_new_process(function: Callable[..., float], *arguments: object) -> float:
    """Call in a process that has imported torch and nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *(f"{clipping.__name__}.{name}" for name in ENGINES)])
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(function, *arguments).result()
