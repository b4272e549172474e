"""``dpbench show``: what is known about a run, or about scores of samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dpbench.cli.app import outcome
from dpbench.cli.options import AsJson, Debug, Everything, RunsDir
from dpbench.cli.results import print_run, print_scores


def show(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run's folder, its record, the beginning of its id, or a file of scores that "
            "`dpbench evaluate` made.",
        ),
    ],
    runs_dir: RunsDir = Path("runs"),
    everything: Everything = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show what a run found, or scores of samples.

    The runs in --runs-dir that it is read against are shown beside it.
    """
    with outcome(debug):
        from dpbench.records.named import file_named, read_named
        from dpbench.records.run_record import RunRecord

        file = file_named(what, runs_dir)
        found = read_named(file)
        if as_json:
            typer.echo(found.dumps(), nl=False)
        elif isinstance(found, RunRecord):
            print_run(found, file.parent, runs_dir, everything)
        else:
            print_scores(found, file, everything)
