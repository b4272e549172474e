"""``dpbench sweep``: carry out a grid of runs, or print what it would do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from dpbench.cli.app import err, new_table, out, outcome, print_json, say_error
from dpbench.cli.options import (
    AdjacencyName,
    AsJson,
    DataRoot,
    Debug,
    Delta,
    Device,
    DryRun,
    EngineName,
    ProfileName,
    Public,
    Reproducible,
    RunsDir,
)
from dpbench.errors import RunFailed

if TYPE_CHECKING:
    from dpbench.progress import Progress
    from dpbench.sweep import Cell, Estimate, Estimates, Outcome, State

Methods = Annotated[
    list[str],
    typer.Option(metavar="NAME,...", help="Generators and baselines; may be repeated."),
]
DatasetNames = Annotated[
    list[str], typer.Option(metavar="NAME,...", help="Data sets; may be repeated.")
]
Epsilons = Annotated[
    list[str],
    typer.Option(
        "--eps",
        metavar="NUMBER,...",
        help="Privacy budgets of the private methods; inf for none; may be repeated.",
    ),
]
Seeds = Annotated[
    list[str],
    typer.Option(metavar="NUMBER,...", help="Public seeds and ranges, 0-2; may be repeated."),
]
FieldSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Set a hyper-parameter of the methods that have it; may be repeated.",
    ),
]
STATES: dict[State, str] = {"new": "to run", "resumed": "to resume", "complete": "complete"}


def sweep(
    methods: Methods,
    datasets: DatasetNames,
    eps: Epsilons = ["1"],  # noqa: B006 (typer copies it)
    seeds: Seeds = ["0"],  # noqa: B006
    delta: Delta = 1e-5,
    adjacency: AdjacencyName = "add_remove",
    profile: ProfileName = "laptop",
    settings: FieldSettings = None,
    public: Public = None,
    runs_dir: RunsDir = Path("runs"),
    data_root: DataRoot = None,
    device: Device = "auto",
    engine: EngineName = "auto",
    reproducible: Reproducible = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run every method on every data set for every epsilon and seed.

    Nothing runs before everything could be planned. Runs that are complete are skipped, and a run
    that fails stops no other. An interrupted sweep continues where it stopped when the same command
    is given again.
    """
    with outcome(debug, "Interrupted: the same command continues where this one stopped."):
        from dpbench import sweep as sweeps
        from dpbench.console import progress_on
        from dpbench.run import Request

        common = Request(
            method="",
            dataset="",
            delta=delta,
            adjacency=adjacency,  # type: ignore[arg-type]  # checked by PrivacyBudget
            profile=profile,
            settings=tuple(settings or ()),
            reproducible=reproducible,
            device=device,
            engine=engine,
            public=public,
        )
        grid = sweeps.Grid(
            methods=sweeps.words(methods),
            datasets=sweeps.words(datasets),
            epsilons=sweeps.numbers(eps),
            seeds=sweeps.seeds(seeds),
            common=common,
        )
        progress = progress_on(err)
        cells, mistakes = sweeps.cells(grid, runs_dir, data_root, progress)
        if mistakes:
            for line in mistakes:
                say_error(line)
            raise typer.Exit(2)
        estimates = sweeps.Estimates(runs_dir)
        estimated = _estimated(cells, estimates, progress)
        _print_plan(cells, estimated)
        if dry_run:
            if as_json:
                print_json([_plan_json(*each) for each in zip(cells, estimated, strict=True)])
            return
        outcomes = sweeps.execute(cells, estimates, _say_next, runs_dir, data_root, debug)
        if as_json:
            print_json([_outcome_json(each) for each in outcomes])
        else:
            _print_outcomes(outcomes)
        statuses = [each.status for each in outcomes]
        if "interrupted" in statuses or "not run" in statuses:
            raise KeyboardInterrupt
        if failed := statuses.count("failed"):
            raise RunFailed(
                f"{failed} of {len(outcomes)} runs failed: the same command tries them again"
            )


def _estimated(cells: Sequence[Cell], estimates: Estimates, progress: Progress) -> list[Estimate]:
    found = []
    with progress.task("estimating", len(cells), "runs") as task:
        for cell in cells:
            found.append(estimates.of(cell))
            task.advance(1)
    return found


def _say_next(number: int, count: int, cell: Cell, seconds: float) -> None:
    from dpbench.console import duration

    err.print(
        f"\n[bold]run {number} of {count}:[/] {escape(str(cell))}; "
        f"about {duration(seconds)} left in all",
        soft_wrap=True,
        highlight=False,
    )


def _print_plan(cells: Sequence[Cell], estimated: Sequence[Estimate]) -> None:
    from dpbench.console import duration

    table = _new_table("sweep", "", "time", "by")
    for cell, estimate in zip(cells, estimated, strict=True):
        time, by = "", ""
        if cell.state != "complete":
            time = duration(estimate.seconds)
            by = f"{estimate.runs} like it" if estimate.runs else "training alone"
        table.add_row(*_name(cell), STATES[cell.state], time, by)
    err.print(table)
    states = [cell.state for cell in cells]
    counts = ", ".join(f"{states.count(state)} {said}" for state, said in STATES.items())
    total = duration(sum(estimate.seconds for estimate in estimated))
    text = f"{counts}; about {total} in all, without the start of each process"
    err.print(text, soft_wrap=True, highlight=False)


def _print_outcomes(outcomes: Sequence[Outcome]) -> None:
    from dpbench.console import duration

    table = _new_table("sweep", "", "time", "reason")
    for each in outcomes:
        time = duration(each.seconds) if each.seconds else ""
        table.add_row(*_name(each.cell), each.status, time, escape(each.error))
    out.print(table)


def _new_table(title: str, *more: str) -> Table:
    table = new_table(title)
    for column in ("method", "dataset", "eps", "seed", *more):
        right = column in ("eps", "seed", "time")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    return table


def _name(cell: Cell) -> tuple[str, ...]:
    spec = cell.spec
    return (escape(spec.method), spec.dataset, f"{spec.epsilon:g}", str(spec.seed))


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


def _plan_json(cell: Cell, estimate: Estimate) -> dict[str, Any]:
    return {
        **_cell_json(cell),
        "state": cell.state,
        "estimated_seconds": estimate.seconds,
        "measured_runs": estimate.runs,
    }


def _outcome_json(found: Outcome) -> dict[str, Any]:
    return {
        **_cell_json(found.cell),
        "status": found.status,
        "seconds": found.seconds,
        "error": found.error or None,
    }
