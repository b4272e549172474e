"""``dpbench sweep``: execute a grid of runs, or print its plan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dpbench.cli.app import err, outcome, print_json
from dpbench.cli.grids import (
    end,
    estimated_cells,
    outcome_json,
    plan_json,
    print_outcomes,
    refuse,
    say_next,
)
from dpbench.cli.options import (
    AdjacencyName,
    AsJson,
    DataRoot,
    Debug,
    Delta,
    Device,
    DryRun,
    EngineName,
    Evaluators,
    ProfileName,
    Public,
    Published,
    Reproducible,
    RunsDir,
    names_of,
)

Methods = Annotated[
    list[str],
    typer.Option(metavar="NAME,...", help="Generators and baselines (repeatable)."),
]
DatasetNames = Annotated[
    list[str], typer.Option(metavar="NAME,...", help="Data sets (repeatable).")
]
Epsilons = Annotated[
    list[str],
    typer.Option(
        "--eps",
        metavar="NUMBER,...",
        help="Values of epsilon for the private methods (repeatable).",
    ),
]
Seeds = Annotated[
    list[str],
    typer.Option(metavar="NUMBER,...", help="Public seeds, or ranges such as 0-2 (repeatable)."),
]
FieldSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Set a hyper-parameter of the methods that have it (repeatable).",
    ),
]


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
    evaluators: Evaluators = None,
    runs_dir: RunsDir = Path("runs"),
    data_root: DataRoot = None,
    device: Device = "auto",
    engine: EngineName = "auto",
    published: Published = False,
    reproducible: Reproducible = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run every method on every data set for every epsilon and seed.

    The whole grid is planned before the first run starts. Complete runs are skipped, and a failed
    run does not stop the others. The same command continues an interrupted sweep.
    """
    with outcome(debug, "Interrupted: the same command continues where this one stopped."):
        from dpbench.cli.console import progress_on
        from dpbench.core.files import check_writable
        from dpbench.runs.estimates import TimeEstimates
        from dpbench.runs.request import RunRequest
        from dpbench.runs.sweep.execute import execute_cells
        from dpbench.runs.sweep.grid import Grid, parse_numbers, parse_seeds, parse_words, plan_grid

        common = RunRequest(
            method="",
            dataset="",
            delta=delta,
            adjacency=adjacency,  # type: ignore[arg-type]  # checked by PrivacyBudget
            profile=profile,
            settings=tuple(settings or ()),
            published=published,
            reproducible=reproducible,
            device=device,
            engine=engine,
            public=public,
            evaluators=names_of(evaluators),
        )
        grid = Grid(
            methods=parse_words(methods),
            datasets=parse_words(datasets),
            epsilons=parse_numbers(eps),
            seeds=parse_seeds(seeds),
            common=common,
        )
        if not dry_run:
            check_writable(runs_dir, "choose another --runs-dir")
        progress = progress_on(err)
        cells, mistakes = plan_grid(grid, runs_dir, data_root, progress)
        refuse(mistakes)
        for text in dict.fromkeys(text for cell in cells for text in cell.planned.warnings):
            progress.note(f"warning: {text}")
        estimates = TimeEstimates(runs_dir)
        estimated = estimated_cells("sweep", cells, estimates, progress)
        if dry_run:
            if as_json:
                print_json([plan_json(*each) for each in zip(cells, estimated, strict=True)])
            return
        outcomes = execute_cells(cells, estimates, say_next, runs_dir, data_root, debug)
        if as_json:
            print_json([outcome_json(each) for each in outcomes])
        else:
            print_outcomes("sweep", outcomes)
        end(outcomes)
