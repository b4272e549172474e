"""Running the cells of a sweep, one after another, each in a process of its own.

A process of its own gives back all memory when its run ends, keeps what kills it from the other
runs, and makes the peak memory in its record that of its own run.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dpbench.core.errors import UserError
from dpbench.core.signals import INTERRUPTED, deferred
from dpbench.parallel.launcher import start
from dpbench.records.run_record import RECORD, read_record
from dpbench.runs.estimates import TimeEstimates
from dpbench.runs.evaluation import failures
from dpbench.runs.request import RunRequest
from dpbench.runs.sweep.grid import Cell, earlier_record

STANDARD_ERROR = 2  # its descriptor
Status = Literal["done", "skipped", "failed", "interrupted", "not run"]


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


def execute_cells(
    cells: Sequence[Cell],
    estimates: TimeEstimates,
    begins: Callable[[int, int, Cell, float], None],
    runs_dir: Path,
    data_root: Path | None = None,
    debug: bool = False,
) -> list[Outcome]:
    """Run what is not complete, one cell after another.

    The first signal that asks to end is handed to the cell that runs, which saves and ends, and
    ends the sweep.

    Args:
        cells: From ``plan_grid``.
        estimates: Of their time; learns from those that end well.
        begins: Called before a cell runs with its number from 1, the number of those to run, the
            cell, and the estimated seconds until all are done.
        runs_dir: As for ``plan_grid``.
        data_root: As for ``plan_grid``.
        debug: Have runs show where errors come from.

    Returns:
        What became of each cell, in order.

    Raises:
        KeyboardInterrupt: A second signal came; the cell was killed.
    """
    todo = [cell for cell in cells if cell.state != "complete"]
    outcomes: dict[str, Outcome] = {}
    with deferred() as interrupted:
        for number, cell in enumerate(todo):
            if interrupted():
                break
            begins(
                number + 1,
                len(todo),
                cell,
                sum(estimates.of(each.planned, each.earlier).seconds for each in todo[number:]),
            )
            outcome = _run(
                cell, run_command(cell.planned.request, runs_dir, data_root, debug), interrupted
            )
            outcomes[cell.spec.id] = outcome
            if outcome.status == "interrupted":
                break
            if outcome.status == "done":
                estimates.learn(read_record(cell.folder / RECORD))
    return [
        outcomes.get(cell.spec.id)
        or Outcome(cell, "skipped" if cell.state == "complete" else "not run")
        for cell in cells
    ]


def run_command(
    request: RunRequest, runs_dir: Path, data_root: Path | None, debug: bool = False
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
    flags = {
        "published": request.published,
        "reproducible": request.reproducible,
        "debug": debug,
    }
    return [
        "run",
        *(f"--{name}={value}" for name, value in options.items() if value is not None),
        *(f"--set={assignment}" for assignment in request.settings),
        *(f"--{name}" for name, given in flags.items() if given),
    ]


def _run(cell: Cell, arguments: Sequence[str], interrupted: Callable[[], bool]) -> Outcome:
    started = time.monotonic()
    code = run_in_process(arguments, interrupted)
    seconds = time.monotonic() - started
    if code == 0:
        return Outcome(cell, "done", seconds)
    if code in INTERRUPTED or interrupted():
        return Outcome(cell, "interrupted", seconds)
    return Outcome(cell, "failed", seconds, _reason(cell, code))


def run_in_process(arguments: Sequence[str], interrupted: Callable[[], bool]) -> int:
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
                child.send_signal(signal.SIGTERM)  # SIGINT may be ignored, in a background job
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
        record = earlier_record(cell.folder)
        if record is not None and record != cell.earlier:
            if reason := record.error or failures(cell.planned.evaluators, record):
                return reason
    return f"ended with exit code {code}, for the reason that it printed"
