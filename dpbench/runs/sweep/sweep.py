"""Grids of runs: planned all together, then run one after another, each in a process of its own.

A process of its own gives back all memory when its run ends, keeps what kills it from the other
runs, and makes the peak memory in its record that of its own run.
"""

from __future__ import annotations

import itertools
import re
import signal
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dpbench.api.sources import PublicSource
from dpbench.core.errors import INTERRUPTED, UserError
from dpbench.core.progress import Progress
from dpbench.core.registry import load as load_entry
from dpbench.data.load import load
from dpbench.parallel.launcher import start
from dpbench.records.run_record import RECORD, RunRecord, RunSpec, find, read
from dpbench.runs.execute import PUBLIC_FIELD, PlannedRun, Request, plan, public_of, spec_of
from dpbench.runs.hyperparameters import hyperparameters
from dpbench.training.loop import deferred_interrupts

STANDARD_ERROR = 2  # its descriptor
State = Literal["new", "resumed", "complete"]
Status = Literal["done", "skipped", "failed", "interrupted", "not run"]


@dataclass(frozen=True)
class Grid:
    """Runs of every method on every data set for every seed, and every epsilon if it is private.

    Attributes:
        methods: CLI names.
        datasets: CLI names.
        epsilons: Of the private methods; the others have none.
        seeds: Public seeds.
        common: All else that is asked of a run. A setting goes to the methods that have it, and so
            do public images.
    """

    methods: tuple[str, ...]
    datasets: tuple[str, ...]
    epsilons: tuple[float, ...]
    seeds: tuple[int, ...]
    common: Request


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
        planned: What it will do.
        spec: What its record says, or will say, that was asked for.
        folder: Where it is, or will be.
        earlier: What an earlier run left there.
    """

    planned: PlannedRun
    spec: RunSpec
    folder: Path
    earlier: RunRecord | None

    @property
    def state(self) -> State:
        """What is to be done about it."""
        if self.earlier is None:
            return "new"
        return "complete" if self.planned.completed(self.earlier) else "resumed"

    def __str__(self) -> str:
        """The cell as people call it."""
        return _title(self.planned.request)


@dataclass(frozen=True)
class Estimate:
    """How long a cell will take, or what is left of it.

    Attributes:
        seconds: Wall time, without the start of its process.
        runs: How many complete runs like it were measured; 0 where there is none, and only its
            training was estimated, from one step of each stage.
    """

    seconds: float
    runs: int


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    Attributes:
        cell: Which.
        status: ``skipped`` is what was complete before.
        seconds: Wall time spent on it now.
        error: Why it failed, in one line.
    """

    cell: Cell
    status: Status
    seconds: float = 0.0
    error: str = ""


def words(texts: Iterable[str]) -> tuple[str, ...]:
    """The parts of comma-separated texts, without repetitions."""
    parts = (part.strip() for text in texts for part in text.split(","))
    return tuple(dict.fromkeys(part for part in parts if part))


def numbers(texts: Iterable[str]) -> tuple[float, ...]:
    """Comma-separated numbers.

    Raises:
        UserError: One is none.
    """
    try:
        return tuple(float(word) for word in words(texts))
    except ValueError as error:
        raise UserError(f"--eps takes numbers such as 1,10: {error}") from None


def seeds(texts: Iterable[str]) -> tuple[int, ...]:
    """Comma-separated whole numbers and ranges: ``0-2`` is 0, 1 and 2.

    Raises:
        UserError: One is neither.
    """
    found: list[int] = []
    for word in words(texts):
        ends = re.fullmatch(r"(-?\d+)(?:-(\d+))?", word)
        if ends is None or int(ends[2] or ends[1]) < int(ends[1]):
            raise UserError(
                f"--seeds takes whole numbers and ranges such as 0,1 or 0-2, got {word!r}"
            )
        found += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    return tuple(found)


def cells(
    grid: Grid, runs_dir: Path, data_root: Path | None, progress: Progress
) -> tuple[list[Cell], list[str]]:
    """Plan every run of a grid, and find what is there of it already.

    Seeds change last, so that a sweep that was stopped has every method once.

    Args:
        grid: What to run.
        runs_dir: Where runs are kept.
        data_root: Where to look for data first.
        progress: Who is told.

    Returns:
        The cells, each once, and what is wrong with those that are missing, one line each.
    """
    mistakes = _Mistakes()
    return _cells(_requests(grid, mistakes), mistakes, runs_dir, data_root, progress)


def cells_of(
    requests: Iterable[Request], runs_dir: Path, data_root: Path | None, progress: Progress
) -> tuple[list[Cell], list[str]]:
    """Plan runs that make up no grid, as ``cells`` does.

    Args:
        requests: What to run, in order.
        runs_dir: As for ``cells``.
        data_root: As for ``cells``.
        progress: As for ``cells``.

    Returns:
        As ``cells``.
    """
    return _cells(list(dict.fromkeys(requests)), _Mistakes(), runs_dir, data_root, progress)


def _cells(
    requests: Sequence[Request],
    mistakes: _Mistakes,
    runs_dir: Path,
    data_root: Path | None,
    progress: Progress,
) -> tuple[list[Cell], list[str]]:
    """Each data set is loaded once, for its content is part of a run's id."""
    planned = _planned(requests, mistakes, progress)
    hashes: dict[str, str] = {}
    for name in dict.fromkeys(each.dataset.name for each in planned):
        with mistakes.kept():
            hashes[name] = load(name, data_root, progress).content_hash
    opened: dict[tuple[str, str], PublicSource | None] = {}
    found = []
    for each in planned:
        if each.dataset.name in hashes:
            with mistakes.kept():
                content, images = hashes[each.dataset.name], (each.plan.public, each.dataset.name)
                if images not in opened:
                    opened[images] = public_of(each, content, data_root, progress)
                spec = spec_of(each, content, opened[images])
                folder = runs_dir / spec.folder
                found.append(Cell(each, spec, folder, _record(folder)))
    return found, mistakes.lines()


def _planned(
    requests: Sequence[Request], mistakes: _Mistakes, progress: Progress
) -> list[PlannedRun]:
    planned = []
    with progress.task("planning", len(requests), "runs") as task:
        for request in requests:
            with mistakes.kept(_title(request)):
                planned.append(plan(request))
            task.advance(1)
    return planned


def _requests(grid: Grid, mistakes: _Mistakes) -> list[Request]:
    """The runs of a grid, each once."""
    kinds = {}
    for name in grid.methods:
        with mistakes.kept():
            kinds[name] = load_entry("method", name)
    for option, given in (
        ("--methods", grid.methods),
        ("--datasets", grid.datasets),
        ("--eps", grid.epsilons),
        ("--seeds", grid.seeds),
    ):
        if not given:
            mistakes.add(f"{option} is empty: give one or more, separated by commas")
    fields = {name: hyperparameters(kind) for name, kind in kinds.items()}
    settings = {assignment: assignment.partition("=")[0] for assignment in grid.common.settings}
    for field in settings.values():
        # a method that could not be loaded might have it
        if len(kinds) == len(grid.methods) and not any(field in each for each in fields.values()):
            mistakes.add(f"--set {field}: no method of this sweep has that hyper-parameter")
    public = grid.common.public
    if public is not None and not any(PUBLIC_FIELD in each for each in fields.values()):
        mistakes.add(f"--public {public}: no method of this sweep pre-trains on public images")
    return list(
        dict.fromkeys(
            replace(
                grid.common,
                method=name,
                dataset=dataset,
                epsilon=epsilon,
                seed=seed,
                settings=tuple(text for text, field in settings.items() if field in fields[name]),
                public=public if PUBLIC_FIELD in fields[name] else None,
            )
            for seed, dataset, name in itertools.product(grid.seeds, grid.datasets, kinds)
            for epsilon in (grid.epsilons if kinds[name].private else (None,))
        )
    )


class _Mistakes:
    """Collects users' mistakes; what is wrong with many cells alike is one line."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def add(self, message: str, *where: str) -> None:
        self._found.setdefault(message, []).extend(where)

    @contextmanager
    def kept(self, *where: str) -> Iterator[None]:
        """Keep a ``UserError`` and go on."""
        try:
            yield
        except UserError as error:
            self.add(str(error), *where)

    def lines(self) -> list[str]:
        return [
            message + (f" ({where[0]}{_others(len(where) - 1)})" if where else "")
            for message, where in self._found.items()
        ]


def _others(count: int) -> str:
    return f", and {count} more" if count else ""


def _title(request: Request) -> str:
    epsilon = "" if request.epsilon is None else f", epsilon {request.epsilon:g}"
    return f"{request.method} on {request.dataset}{epsilon}, seed {request.seed}"


def _record(folder: Path) -> RunRecord | None:
    """What an earlier run left in a folder.

    Raises:
        UserError: It cannot be read.
    """
    file = folder / RECORD
    if not file.exists():
        return None
    try:
        return read(file)
    except UserError as error:
        raise UserError(f"{error}; remove it, and the run starts anew") from error


class Estimates:
    """How long cells take on this machine: as long as runs like them took, or as a probe tells.

    Args:
        runs_dir: Where to look for complete runs.
    """

    def __init__(self, runs_dir: Path) -> None:
        """Read what is there."""
        self._measured: dict[tuple[object, ...], list[dict[str, float]]] = {}
        self._probed: dict[tuple[object, ...], float] = {}
        for file in find(runs_dir):
            with suppress(UserError):  # a record that cannot be read is of no run of this sweep
                self.learn(read(file))

    def learn(self, record: RunRecord) -> None:
        """Take a run into account if it is complete."""
        if record.status == "complete":
            self._measured.setdefault(_work_of_record(record), []).append(record.timings)

    def of(self, cell: Cell) -> Estimate:
        """What is left to do for a cell; nothing if it is complete."""
        if cell.state == "complete":
            return Estimate(0.0, 0)
        work = _work(cell.planned)
        parts = {"fit", "sample", *cell.planned.evaluators}
        measured = [
            sum(timings[part] for part in parts)
            for timings in self._measured.get(work, [])
            if parts <= timings.keys()
        ]
        if measured:
            total = statistics.median(measured)
        else:
            if work not in self._probed:
                self._probed[work] = cell.planned.estimated_seconds
            total = self._probed[work]
        earlier = cell.earlier.timings if cell.earlier else {}
        spent = sum(seconds for part, seconds in earlier.items() if part in parts)
        return Estimate(max(0.0, total - spent), len(measured))


def _work(planned: PlannedRun) -> tuple[object, ...]:
    """What runs that take about as long have in common."""
    training = planned.plan
    return (
        *(planned.request.method, planned.dataset.name, planned.profile.name),
        *(training.evaluations(private=True), training.evaluations(private=False)),
        *(training.parameters, str(planned.device), planned.ranks.size),
    )


def _work_of_record(record: RunRecord) -> tuple[object, ...]:
    """The same of a complete run."""
    spec, cost, resolved = record.spec, record.cost, record.resolved
    return (
        *(spec.method, spec.dataset, spec.profile),
        *(cost.get("private_evaluations"), cost.get("public_evaluations")),
        *(cost.get("parameters"), resolved.get("device"), resolved.get("processes")),
    )


def execute(
    cells: Sequence[Cell],
    estimates: Estimates,
    begins: Callable[[int, int, Cell, float], None],
    runs_dir: Path,
    data_root: Path | None = None,
    debug: bool = False,
) -> list[Outcome]:
    """Run what is not complete, one cell after another.

    The first SIGINT or SIGTERM is handed to the cell that runs, which saves and ends, and ends the
    sweep.

    Args:
        cells: From ``cells``.
        estimates: Of their time; learns from those that end well.
        begins: Called before a cell runs with its number from 1, the number of those to run, the
            cell, and the estimated seconds until all are done.
        runs_dir: As for ``cells``.
        data_root: As for ``cells``.
        debug: Have runs show where errors come from.

    Returns:
        What became of each cell, in order.

    Raises:
        KeyboardInterrupt: A second signal came; the cell was killed.
    """
    todo = [cell for cell in cells if cell.state != "complete"]
    outcomes: dict[str, Outcome] = {}
    with deferred_interrupts() as interrupted:
        for number, cell in enumerate(todo):
            if interrupted():
                break
            begins(
                number + 1,
                len(todo),
                cell,
                sum(estimates.of(each).seconds for each in todo[number:]),
            )
            outcome = _run(
                cell, command(cell.planned.request, runs_dir, data_root, debug), interrupted
            )
            outcomes[cell.spec.id] = outcome
            if outcome.status == "interrupted":
                break
            if outcome.status == "done":
                estimates.learn(read(cell.folder / RECORD))
    return [
        outcomes.get(cell.spec.id)
        or Outcome(cell, "skipped" if cell.state == "complete" else "not run")
        for cell in cells
    ]


def command(
    request: Request, runs_dir: Path, data_root: Path | None, debug: bool = False
) -> list[str]:
    """The arguments with which ``dpbench`` runs a request."""
    options = {
        "method": request.method,
        "dataset": request.dataset,
        "eps": request.epsilon,
        "delta": request.delta,
        "adjacency": request.adjacency,
        "seed": request.seed,
        "profile": request.profile,
        "public": request.public,
        "evaluators": None if request.evaluators is None else ",".join(request.evaluators),
        "device": request.device,
        "engine": request.engine,
        "runs-dir": runs_dir,
        "data-root": data_root,
    }
    flags = {"reproducible": request.reproducible, "debug": debug}
    return [
        "run",
        *(f"--{name}={value}" for name, value in options.items() if value is not None),
        *(f"--set={assignment}" for assignment in request.settings),
        *(f"--{name}" for name, given in flags.items() if given),
    ]


def _run(cell: Cell, arguments: Sequence[str], interrupted: Callable[[], bool]) -> Outcome:
    started = time.monotonic()
    code = in_process(arguments, interrupted)
    seconds = time.monotonic() - started
    if code == 0:
        return Outcome(cell, "done", seconds)
    if code == INTERRUPTED or interrupted():
        return Outcome(cell, "interrupted", seconds)
    return Outcome(cell, "failed", seconds, _reason(cell, code))


def in_process(arguments: Sequence[str], interrupted: Callable[[], bool]) -> int:
    """Run ``dpbench`` in a process of its own, which prints to standard error only.

    Args:
        arguments: What follows ``dpbench``.
        interrupted: Whether to have it save and end.

    Returns:
        Its exit code, negative for the signal that killed it.
    """
    child = start(arguments, {}, STANDARD_ERROR)
    told = False
    try:
        while child.poll() is None:
            if interrupted() and not told:
                child.send_signal(signal.SIGINT)
                told = True
            time.sleep(0.05)
        return child.returncode
    finally:
        child.kill()  # no more than a formality, but for a second interruption
        child.wait()


def _reason(cell: Cell, code: int) -> str:
    """Why a cell failed: what its record says, if it got as far as to change it."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    with suppress(UserError):
        record = _record(cell.folder)
        if record is not None and record != cell.earlier and record.error:
            return record.error
    return f"ended with exit code {code}, for the reason that it printed"
