"""``dpbench release``: what may be given away of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dpbench.cli.app import err, out, outcome
from dpbench.cli.options import Debug, RunsDir


def release(
    what: Annotated[
        str,
        typer.Argument(metavar="RUN", help="A run's folder, its record, or the start of its id."),
    ],
    out_folder: Annotated[
        Path, typer.Option("--out", help="Folder to write to, which is made and must be new.")
    ],
    npz: Annotated[
        bool, typer.Option("--npz", help="One file of arrays in place of PNG files by class.")
    ] = False,
    with_scores: Annotated[
        bool,
        typer.Option(
            "--with-scores",
            help="Keep what was measured on private images, which no guarantee covers.",
        ),
    ] = False,
    runs_dir: RunsDir = Path("runs"),
    debug: Debug = False,
) -> None:
    """Write what may be given away of a run.

    That is its images with their labels, the record with the certificate, and a datasheet. Runs
    that are void for release, not private, or whose audit has raised an alarm, are refused.
    """
    with outcome(debug, "Interrupted: nothing was released."):
        from dpbench.cli.console import progress_on
        from dpbench.records.named import file_named
        from dpbench.report.release import DATASHEET
        from dpbench.report.release import release as written

        file = file_named(what, runs_dir)
        record = written(file, out_folder, npz, with_scores, progress_on(err))
        privacy = record.privacy
        out.say(f"released   {record.spec.samples:,} images, {out_folder}")
        out.say(f"guarantee  epsilon {privacy['epsilon']:.6g}, delta {privacy['delta']:g}")
        out.say(f"read       {out_folder / DATASHEET}")
        out.say(f"check      dpbench verify {out_folder}")
