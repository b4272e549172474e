"""Options that several commands share, each defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dpbench.core.errors import UserError


def _methods(incomplete: str) -> list[str]:
    from dpbench.core.registry import entries

    return [name for name in entries("method") if name.startswith(incomplete)]


def _datasets(incomplete: str) -> list[str]:
    from dpbench.data.catalog import CATALOG

    return [name for name in CATALOG if name.startswith(incomplete)]


def _profiles(incomplete: str) -> list[str]:
    from dpbench.api.profiles import PROFILES

    return [name for name in PROFILES if name.startswith(incomplete)]


Method = Annotated[
    str,
    typer.Option(
        help="Generator or baseline; see `dpbench list methods`.", autocompletion=_methods
    ),
]
DatasetName = Annotated[
    str,
    typer.Option(
        help="Data set; see `dpbench list datasets`, or imagefolder:PATH.",
        autocompletion=_datasets,
    ),
]
Epsilon = Annotated[
    float | None,
    typer.Option(
        "--eps",
        help="epsilon of the privacy budget. Default: 1, or inf for methods that are not private.",
    ),
]
Delta = Annotated[float, typer.Option(help="delta of (epsilon, delta)-differential privacy.")]
AdjacencyName = Annotated[
    str, typer.Option(help="Adjacency of data sets: add_remove or replace_one.")
]
Seed = Annotated[int, typer.Option(help="Public seed of all randomness except the privacy noise.")]
ProfileName = Annotated[
    str,
    typer.Option(help="Size of the run; see `dpbench list profiles`.", autocompletion=_profiles),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Set a hyper-parameter (repeatable)."),
]
Public = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Public images to pre-train on: a programmatic source (`dpbench list sources`), a "
        "data set, imagefolder:PATH, or none. Default: the preset's choice.",
    ),
]
Evaluators = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,...",
        help="Evaluators to measure with. Default: all; see `dpbench list evaluators`.",
    ),
]
RunsDir = Annotated[Path, typer.Option(help="Folder that holds the runs.")]
RunFolder = Annotated[
    Path | None, typer.Option("--out", help="Folder of this run, instead of one in --runs-dir.")
]
DataRoot = Annotated[
    Path | None,
    typer.Option(envvar="DPBENCH_DATA", help="Folder to search for data sets first."),
]
Device = Annotated[str, typer.Option(help="Device to compute on: auto, cpu, cuda, cuda:1, ...")]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        help="Engine of per-example gradients: auto (the fastest on this machine), folded, vmap, "
        "loop or opacus. All compute the same sums up to rounding.",
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of processes on this machine that share private training, each with its own "
        "CUDA device or its share of the cores. For several machines use torchrun -m dpbench run.",
    ),
]
Published = Annotated[
    bool,
    typer.Option(
        "--published",
        help="Leave out what presets add to a published method: class centres, natural spectrum, "
        "class statistics, class recipes, noise levels left untrained.",
    ),
]
Reproducible = Annotated[
    bool,
    typer.Option(
        "--reproducible",
        help="Derive the privacy noise from the seed as well, and fix the engine: the same run, by "
        "equally many processes of one machine, gives the same bytes. It is void for release.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan without running it.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Discard an earlier run of the same specification.")
]
Remeasure = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,...",
        help="Evaluators to measure the run's samples with again; nothing is trained or released.",
    ),
]
Everything = Annotated[bool, typer.Option("--all", help="Print every measurement.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")]


def names_of(text: str | None) -> tuple[str, ...] | None:
    """Names in the value of ``--evaluators``; None if the option was not given."""
    return None if text is None else tuple(filter(None, map(str.strip, text.split(","))))


def check_read(folder: Path, default: str) -> None:
    """Check a folder that a command reads.

    Raises:
        UserError: It is not there. Only the default need not be: nothing was made there yet.
    """
    if not folder.is_dir() and (folder.exists() or folder != Path(default)):
        raise UserError(f"there is no folder {folder}")
