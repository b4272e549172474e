"""Selection of the engine and the physical batch size of private training.

Both affect speed and memory, not what is released, so they may be chosen by timing. Engines are
timed on random images with the initial weights; private images have no part in the choice.

Timings are cached, verdicts are not: the engine that is used is compared with plain autograd in
every process that uses it.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from dpbench.core.cache import Cache
from dpbench.core.errors import RunFailed, UserError, passing
from dpbench.core.images import ImageSpec
from dpbench.parallel.cores import core_count, sharing
from dpbench.parallel.ranks import ALONE, Ranks
from dpbench.privacy.clipping import ENGINES, Objective, engine, trainable

AUTO = "auto"
# Opacus is there for comparison; it has never been the fastest.
CANDIDATES = ("folded", "vmap", "loop")
# Copies that go through the network at once on each core. On CPUs fewer copies are slower, because
# Python's overhead per physical batch, during which other cores wait, is shared by fewer.
CPU_COPIES, CUDA_COPIES = 128, 4096
# Share of the machine's memory that private training may use.
MEMORY_SHARE = 0.25
# Peak memory of activations, in units of what autograd saves for the backward pass.
ACTIVATIONS = 3
# Longest time for timing an engine once, seconds.
AFFORDABLE = 4.0
# Gradients that an engine holds for each example; Opacus holds one for each copy.
GRADIENTS = {"folded": 1, "vmap": 2, "loop": 0}
# Largest relative deviation from autograd. Rounding in bfloat16 moves a tensor of clipped gradients
# by a few percent, a mistake by far more.
TOLERANCE = 0.25
# A clipping norm so small that all examples have the same weight.
SMALL_NORM = 1e-3


@dataclass(frozen=True)
class Execution:
    """How the gradients of a private training are computed.

    Attributes:
        engine: One of ``clipping.ENGINES``.
        physical_batch: Examples that go through the network at once on each core.
        copies_per_s: Copies per second on one core, for each engine that was timed.
        refused: Why other engines cannot train the model, by engine.
    """

    engine: str
    physical_batch: int
    copies_per_s: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """One-line summary."""
        speeds = ", ".join(f"{name} {speed:,.0f}" for name, speed in self.copies_per_s.items())
        timed = f" (images/s on one core: {speeds})" if speeds else ""
        used = f"{self.engine} engine{timed}, {self.physical_batch} examples at once on each core"
        return "; ".join([used, *(f"not {name}: {why}" for name, why in self.refused.items())])


class Executions:
    """Chooses an execution for each private training of a run, once.

    Args:
        engine: A name in ``ENGINES``, or ``auto`` for the fastest.
        chosen: Earlier choices by purpose, as JSON values; new ones are added.
        cache: Keeps the timings made on this machine for other runs; None for no cache.
        decided: Called after each choice with a one-line summary, so that the choice can be saved.
        ranks: Processes of the run; the first one chooses for all.
        reproducible: Take the first engine that fits, whatever a stopwatch says: engines differ in
            their last bits.
    """

    def __init__(
        self,
        engine: str = AUTO,
        chosen: dict[str, Any] | None = None,
        cache: Cache | None = None,
        decided: Callable[[str], None] = lambda line: None,
        ranks: Ranks = ALONE,
        reproducible: bool = False,
    ) -> None:
        """Store the arguments; nothing is chosen yet."""
        self._reproducible = reproducible
        self._compared: set[str] = set()
        self._engine = check_name(engine)
        self._chosen = {} if chosen is None else chosen
        self._cache = cache
        self._decided = decided
        self._ranks = ranks

    def of(
        self, purpose: str, model: nn.Module, objective: Objective, spec: ImageSpec
    ) -> Execution:
        """The execution of a private training; an earlier choice is kept if it still agrees.

        Args:
            purpose: Purpose of its privacy event.
            model: Network to train.
            objective: Training loss.
            spec: Shape of one image.

        Raises:
            UserError: The requested engine, or the one that was chosen earlier, does not
                differentiate this model.
            RunFailed: No engine does.
        """
        if self._ranks.first and purpose not in self._compared:
            if purpose in self._chosen:  # by an earlier process, perhaps with other code
                reference = _Reference.of(model, objective, spec)
                _check_against_autograd(reference, objective, self._chosen[purpose]["engine"])
            else:
                execution = self._choice(model, objective, spec)
                self._chosen[purpose] = asdict(execution)
                self._decided(f"{purpose}: {execution}")
            self._compared.add(purpose)
        told = self._ranks.broadcast(json.dumps(self._chosen.get(purpose)).encode())
        return Execution(**json.loads(told))

    def _choice(self, model: nn.Module, objective: Objective, spec: ImageSpec) -> Execution:
        if self._reproducible:
            return first_that_fits(model, objective, spec)
        return choose(model, objective, spec, self._engine, self._cache)


def copies_at_once(device: torch.device) -> int:
    """Number of copies in a physical batch, unless memory requires fewer."""
    return CPU_COPIES if device.type == "cpu" else CUDA_COPIES


def check_name(name: str) -> str:
    """Return ``name`` if it is ``auto`` or the name of an engine.

    Raises:
        UserError: There is no such engine.
    """
    if name not in (AUTO, *ENGINES):
        raise UserError(f"unknown engine {name!r}: choose one of {', '.join((AUTO, *ENGINES))}")
    return name


def choose(
    model: nn.Module, objective: Objective, spec: ImageSpec, name: str, cache: Cache | None = None
) -> Execution:
    """Choose the fastest engine that agrees with plain autograd, and size its physical batch.

    An engine that raises anything, or gives other sums than autograd, is refused, and the reason is
    kept. Engines that a cached timing shows to be slower are neither checked nor timed again.

    Args:
        model: Network to train.
        objective: Training loss.
        spec: Shape of one image.
        name: A name in ``ENGINES``, or ``auto``.
        cache: Keeps timings; None for no cache.

    Raises:
        UserError: The requested engine cannot differentiate this model.
        RunFailed: No engine can.
    """
    device = next(iter(trainable(model).values())).device
    file = f"engines/{_key(model, objective, spec, device)}.json"
    known = (cache.find(file, _timings) if cache is not None else None) or {}
    reference = functools.cache(lambda: _Reference.of(model, objective, spec))
    sizes: dict[str, int] = {}
    speeds: dict[str, float] = {}
    refused: dict[str, str] = {}
    failed: list[Exception] = []
    names = CANDIDATES if name == AUTO else (name,)
    for each in sorted(names, key=lambda each: -known.get(each, math.inf)):
        best = max(speeds.values(), default=0.0)
        if known.get(each, math.inf) < best:
            continue
        try:
            _check_against_autograd(reference(), objective, each)
            sizes[each] = _physical_batch(model, objective, spec, each)
            speeds[each] = known.get(each) or _copies_per_s(
                model, objective, spec, each, sizes[each], best
            )
        except Exception as error:  # an engine may fail on a model in any way
            if name != AUTO and passing(error):
                raise
            if name != AUTO:
                raise UserError(
                    f"the {name} engine cannot train this model: {_reason(error)}"
                ) from error
            refused[each] = _reason(error)
            failed.append(error)
    if not speeds:
        raise _nothing_fits(refused, failed)
    fastest = max(speeds, key=speeds.__getitem__)
    timed = known | {each: float(f"{speed:.4g}") for each, speed in speeds.items()}
    if cache is not None and timed != known:
        cache.keep(file, lambda handle: handle.write(json.dumps(timed).encode()))
    shown = {each: timed[each] for each in names if each in timed and each not in refused}
    return Execution(fastest, sizes[fastest], shown, refused)


def first_that_fits(model: nn.Module, objective: Objective, spec: ImageSpec) -> Execution:
    """Choose the first of ``CANDIDATES`` that agrees with plain autograd, without timing.

    On one machine the choice depends on nothing but the arguments. So what says nothing about them,
    such as a lack of memory, is raised.

    Raises:
        RunFailed: No engine agrees.
    """
    reference = functools.cache(lambda: _Reference.of(model, objective, spec))
    refused: dict[str, str] = {}
    for name in CANDIDATES:
        try:
            _check_against_autograd(reference(), objective, name)
            size = _physical_batch(model, objective, spec, name)
            return Execution(name, size, refused=refused)
        except Exception as error:
            if passing(error):
                raise
            refused[name] = _reason(error)
    raise _nothing_fits(refused)


def _reason(error: Exception) -> str:
    """The first line of an error, with its type unless it was worded for users."""
    line = (str(error).splitlines() or [""])[0]
    return line if isinstance(error, UserError) else f"{type(error).__name__}: {line}"


def _nothing_fits(refused: dict[str, str], failed: Sequence[Exception] = ()) -> Exception:
    """What to raise where no engine is left: a lack of memory says nothing about the model."""
    for error in failed:
        if passing(error):
            return error
    reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
    return RunFailed(f"no engine can differentiate this model ({reasons})")


@dataclass(frozen=True)
class _Reference:
    """Sums by plain autograd, one example after another, at random weights and images."""

    model: nn.Module
    copies: tuple[Tensor, ...]
    sums: dict[str, Tensor]

    @classmethod
    def of(cls, model: nn.Module, objective: Objective, spec: ImageSpec) -> _Reference:
        moved = copy.deepcopy(model)  # at weights of zero others have no gradient
        copies, rng = _random_copies(objective, spec, 3, next(model.parameters()).device)
        with torch.no_grad():
            for parameter in trainable(moved).values():
                noise = torch.randn(parameter.shape, generator=rng, device=rng.device)
                parameter.add_(noise, alpha=0.05)
        return cls(moved, copies, engine("loop")(moved, objective, copies, SMALL_NORM))


def _check_against_autograd(reference: _Reference, objective: Objective, name: str) -> None:
    """Check that an engine agrees with autograd on a model.

    Raises:
        UserError: It does not: the engine misunderstands the model, or examples interact in it.
    """
    got = engine(name)(reference.model, objective, reference.copies, SMALL_NORM)
    for parameter_name, want in reference.sums.items():
        distance = float((got[parameter_name] - want).norm())
        if not distance <= TOLERANCE * float(want.norm()) + 1e-9:
            raise UserError(
                f"the {name} engine and plain autograd disagree on {parameter_name!r} by "
                f"{distance / max(float(want.norm()), 1e-30):.0%}: examples that influence each "
                "other, or a layer used in a way that the engine misunderstands"
            )


def _physical_batch(model: nn.Module, objective: Objective, spec: ImageSpec, name: str) -> int:
    """Number of examples that are useful and fit into one core's share of the memory."""
    multiplicity = objective.multiplicity
    copies, rng = _random_copies(objective, spec, 1, next(model.parameters()).device)
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        objective.loss(model, *copies)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    activations = sum(size for pointer, size in saved.items() if pointer not in weights)
    gradient = 4 * sum(p.numel() for p in trainable(model).values())
    per_example = ACTIVATIONS * activations + GRADIENTS.get(name, multiplicity) * gradient
    on_cpu = rng.device.type == "cpu"
    users = core_count() * sharing() if on_cpu else 1
    memory = MEMORY_SHARE * _memory(rng.device) / users
    useful = max(1, copies_at_once(rng.device) // multiplicity)
    return max(1, min(useful, int(memory // per_example)))


def _memory(device: torch.device) -> float:
    """Total memory in bytes; free memory would change from run to run."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    memory = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    return memory if text == "max" else min(memory, float(text))


def _copies_per_s(
    model: nn.Module,
    objective: Objective,
    spec: ImageSpec,
    name: str,
    examples: int,
    best: float,
) -> float:
    """Speed of an engine on one core: the better of two timings, or one if it is far behind.

    If a physical batch would take too long, fewer examples are timed.
    """

    def speed_of(count: int) -> float:
        copies, rng = _random_copies(objective, spec, count, next(model.parameters()).device)
        started = time.perf_counter()
        sums = engine(name)(model, objective, copies, 1.0)
        next(iter(sums.values())).sum().item()  # waits for the device
        return count * objective.multiplicity / (time.perf_counter() - started)

    affordable = int(AFFORDABLE * speed_of(1) / objective.multiplicity)
    count = max(1, min(examples, affordable))
    first = speed_of(count)
    return first if first < best / 2 else max(first, speed_of(count))


def _random_copies(
    objective: Objective, spec: ImageSpec, examples: int, device: torch.device
) -> tuple[tuple[Tensor, ...], torch.Generator]:
    rng = torch.Generator(device).manual_seed(0)
    shape = (examples, *spec.shape)
    pixels = torch.randint(0, 256, shape, generator=rng, device=device).to(torch.uint8)
    labels = torch.zeros(examples, dtype=torch.int64, device=device)
    return objective.draw(pixels, labels, rng), rng


def _key(model: nn.Module, objective: Objective, spec: ImageSpec, device: torch.device) -> str:
    """Hash of everything that the speed of engines depends on."""
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    parts = (
        _code_hash(),
        processor,
        core_count(),
        torch.__version__,
        spec.shape,
        objective.multiplicity,
        repr(model),
        getattr(model, "precision", ""),
        [(key, tuple(p.shape), str(p.dtype)) for key, p in trainable(model).items()],
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


@functools.cache
def _code_hash(folder: Path = Path(__file__).parent) -> str:
    """Hash of the source of all engines."""
    code = hashlib.sha256()
    for file in sorted(folder.glob("*.py")):
        code.update(f"{file.name}\n".encode() + file.read_bytes())
    return code.hexdigest()


def _timings(handle: BinaryIO) -> dict[str, float]:
    """Copies per second by engine, as they are kept.

    Raises:
        ValueError: They have another format.
    """
    found = json.load(handle)
    if not isinstance(found, dict) or not all(
        name in ENGINES and isinstance(speed, (int, float)) and speed > 0
        for name, speed in found.items()
    ):
        raise ValueError("it holds no timings of engines")
    return found
