"""Plans and outcomes of grids, for the commands that execute several runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table
from rich.text import Text

from dpbench.cli.app import err, new_table, out, say_error
from dpbench.core.errors import RunFailed
from dpbench.core.text import visible

if TYPE_CHECKING:
    from dpbench.core.progress import Progress
    from dpbench.runs.estimates import TimeEstimate, TimeEstimates
    from dpbench.runs.sweep.execute import Outcome
    from dpbench.runs.sweep.grid import Cell, State

STATES: dict[State, str] = {"new": "to run", "resumed": "to resume", "complete": "complete"}


def refuse(mistakes: Sequence[str]) -> None:
    """Print the mistakes in a grid; if there are any, end the command with exit code 2."""
    for line in mistakes:
        say_error(line)
    if mistakes:
        raise typer.Exit(2)


def estimated_cells(
    title: str, cells: Sequence[Cell], estimates: TimeEstimates, progress: Progress
) -> list[TimeEstimate]:
    """Estimate the time of each run and print the plan on standard error."""
    found = []
    with progress.task("estimating", len(cells), "runs") as task:
        for cell in cells:
            found.append(estimates.of(cell.planned, cell.earlier))
            task.advance(1)
    _print_plan(title, cells, found)
    return found


def say_next(number: int, count: int, cell: Cell, seconds: float) -> None:
    """Announce the next run of a grid on standard error."""
    from dpbench.core.progress import duration

    place = f"run {number} of {count}:", "bold"
    rest = visible(f" {cell}; about {duration(seconds)} left in total")
    err.print(Text.assemble("\n", place, rest), soft_wrap=True)


def _print_plan(title: str, cells: Sequence[Cell], estimated: Sequence[TimeEstimate]) -> None:
    from dpbench.core.progress import duration

    table = _new_table(title, "", "time", "by")
    for cell, estimate in zip(cells, estimated, strict=True):
        time, by = "", ""
        if cell.state != "complete":
            time = duration(estimate.seconds)
            by = f"{estimate.runs} like it" if estimate.runs else "a few steps"
        table.add_row(*_name(cell), STATES[cell.state], time, by)
    err.print(table)
    states = [cell.state for cell in cells]
    counts = ", ".join(f"{states.count(state)} {said}" for state, said in STATES.items())
    total = duration(sum(estimate.seconds for estimate in estimated))
    text = f"{counts}; about {total} in total, not counting process start-up"
    err.say(text)


def print_outcomes(title: str, outcomes: Sequence[Outcome]) -> None:
    """Print the outcome of each run."""
    from dpbench.core.progress import duration

    table = _new_table(title, "", "time", "reason")
    for each in outcomes:
        time = duration(each.seconds) if each.seconds else ""
        table.add_row(*_name(each.cell), each.status, time, each.error)
    out.print(table)


def _new_table(title: str, *more: str) -> Table:
    table = new_table(title)
    for column in ("method", "dataset", "eps", "seed", *more):
        right = column in ("eps", "seed", "time")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    return table


def _name(cell: Cell) -> tuple[str, ...]:
    spec = cell.spec
    method = "+".join((spec.method, *cell.planned.request.settings))
    return (method, spec.dataset, f"{spec.epsilon:g}", str(spec.seed))


def _cell_json(cell: Cell) -> dict[str, Any]:
    spec = cell.spec
    return {
        "id": spec.id,
        "method": spec.method,
        "dataset": spec.dataset,
        "epsilon": spec.epsilon,
        "delta": spec.delta,
        "adjacency": spec.adjacency,
        "seed": spec.seed,
        "profile": spec.profile,
        "method_args": spec.method_args,
        "folder": str(cell.folder),
    }


def plan_json(cell: Cell, estimate: TimeEstimate) -> dict[str, Any]:
    """A line of a plan."""
    return {
        **_cell_json(cell),
        "state": cell.state,
        "estimated_seconds": estimate.seconds,
        "measured_runs": estimate.runs,
    }


def outcome_json(found: Outcome) -> dict[str, Any]:
    """The outcome of one run, for ``--json``."""
    return {
        **_cell_json(found.cell),
        "status": found.status,
        "seconds": found.seconds,
        "error": found.error or None,
    }


def end(outcomes: Sequence[Outcome]) -> None:
    """End the command according to the outcomes of its runs.

    Raises:
        KeyboardInterrupt: The command was interrupted.
        RunFailed: A run failed.
    """
    statuses = [each.status for each in outcomes]
    if "interrupted" in statuses or "not run" in statuses:
        raise KeyboardInterrupt
    if failed := statuses.count("failed"):
        raise RunFailed(
            f"{failed} of {len(outcomes)} runs failed: the same command tries them again"
        )
