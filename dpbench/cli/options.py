"""The options that commands have in common, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Method = Annotated[str, typer.Option(help="Generator or baseline: `dpbench list methods`.")]
DatasetName = Annotated[
    str, typer.Option(help="Data set: `dpbench list datasets`, or imagefolder:PATH.")
]
Epsilon = Annotated[
    float | None,
    typer.Option("--eps", help="Privacy budget; inf for none. Default: 1 (inf for baselines)."),
]
Delta = Annotated[float, typer.Option(help="Probability with which epsilon may fail.")]
AdjacencyName = Annotated[
    str, typer.Option(help="Neighbouring data sets: add_remove or replace_one.")
]
Seed = Annotated[int, typer.Option(help="Public seed of everything but the privacy noise.")]
ProfileName = Annotated[str, typer.Option(help="Size of the run: `dpbench list profiles`.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Set a hyper-parameter; may be repeated."),
]
Public = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Public images to pre-train on: a program (`dpbench list sources`), a data set, "
        "imagefolder:PATH, or none. Default: as the preset says.",
    ),
]
Evaluators = Annotated[
    str | None,
    typer.Option(metavar="NAME,...", help="Default: all of `dpbench list evaluators`."),
]
RunsDir = Annotated[Path, typer.Option(help="Where runs are kept.")]
RunFolder = Annotated[
    Path | None, typer.Option("--out", help="This run's folder, instead of one in --runs-dir.")
]
DataRoot = Annotated[
    Path | None,
    typer.Option(envvar="DPBENCH_DATA", help="Where to look for data first."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        help="What computes private gradients: auto (the fastest here), folded, vmap, loop or "
        "opacus. All give the same numbers.",
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Share private training out over so many processes of this machine, each with a CUDA "
        "device of its own, or its part of the cores. For several machines use torchrun -m dpbench "
        "run.",
    ),
]
Reproducible = Annotated[
    bool,
    typer.Option(
        "--reproducible",
        help="Derive the privacy noise from the seed too: the run is void for release.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Discard an earlier run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error came from.")]


def names_of(text: str | None) -> tuple[str, ...] | None:
    """The names in what ``--evaluators`` was given; None where it was not."""
    return None if text is None else tuple(filter(None, map(str.strip, text.split(","))))
