"""``dpbench doctor``: what this machine has, what will be skipped, and how long runs take here."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from dpbench.cli.app import err, new_table, out, outcome, print_json
from dpbench.cli.options import AsJson, DataRoot, Debug, RunsDir
from dpbench.core.errors import UserError

_TIMED = ("fashionmnist", "laptop")  # data set and profile of the runs whose time is estimated


def doctor(
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out how long runs take, which takes a minute.")
    ] = False,
    runs_dir: RunsDir = Path("runs"),
    data_root: DataRoot = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say what this machine has and lacks for runs.

    What is left out for lack of it, and how long runs take here. Nothing is downloaded; a few
    training steps of each method are timed.
    """
    with outcome(debug):
        found: dict[str, dict[str, str]] = {}
        for title, look in _CHECKS.items():
            if quick and look is _times:
                continue
            found[title] = look(runs_dir, data_root)
            if not as_json:
                _print(title, found[title])
        if as_json:
            print_json(found)


def _print(title: str, lines: dict[str, str]) -> None:
    table = new_table(title)
    table.show_header = False
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in lines.items():
        table.add_row(name, text)
    out.print(table)


def _machine(runs_dir: Path, data_root: Path | None) -> dict[str, str]:
    import torch

    from dpbench import __version__
    from dpbench.core.files import cache_path
    from dpbench.parallel.cores import core_count

    gpus = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    return {
        "dpbench": __version__,
        "python": f"{platform.python_version()}, torch {torch.__version__}",
        "cores": str(core_count()),
        "memory": f"{_memory() / 2**30:.0f} GiB",
        "GPU": ", ".join(gpus) or "none: everything runs on the CPU",
        "cache": _room(cache_path(), "name another place with XDG_CACHE_HOME"),
        "runs": _room(runs_dir.absolute(), "name another folder with --runs-dir"),
    }


def _memory() -> int:
    if sys.platform == "win32":
        return 0
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _room(folder: Path, instead: str) -> str:
    """The free space of a folder's disk, or that nothing can be written there."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not os.access(there, os.W_OK):
        return f"{folder} cannot be written: {instead}"
    return f"{folder}, {shutil.disk_usage(there).free / 2**30:.0f} GiB free"


def _data(runs_dir: Path, data_root: Path | None) -> dict[str, str]:
    from dpbench.data.catalog import CATALOG
    from dpbench.data.load import located

    found = {}
    for name in CATALOG:
        folder, how = located(name, data_root)
        found[name] = f"here: {folder}" if folder else f"not here: {how}"
    return found


def _left_out(runs_dir: Path, data_root: Path | None) -> dict[str, str]:
    """What evaluators lack, for pictures in colour, which need the most."""
    from dpbench.core.images import ImageSpec
    from dpbench.core.registry import entries, load

    found = {}
    for name in entries("evaluator"):
        try:
            missing = getattr(load("evaluator", name), "missing", None)
            lacking = missing(ImageSpec(3, 32, 32)) if missing else None
        except UserError as error:  # broken, or what is named for it is not there
            found[name] = str(error)
            continue
        if lacking is not None:
            found[name] = f"left out in part: {lacking}" if lacking else "has all that it needs"
    return found


def _times(runs_dir: Path, data_root: Path | None) -> dict[str, str]:
    from dpbench.cli.console import progress_on
    from dpbench.core.progress import duration
    from dpbench.core.registry import entries
    from dpbench.runs.estimates import TimeEstimates
    from dpbench.runs.request import RunRequest, plan

    estimates, methods = TimeEstimates(runs_dir), list(entries("method"))
    dataset, profile = _TIMED
    found = {}
    with progress_on(err).task("timing a few steps", len(methods), "methods") as task:
        for method in methods:
            try:
                estimate = estimates.of(plan(RunRequest(method, dataset, profile=profile)))
            except UserError as error:
                found[method] = str(error)
            else:
                how = f"as {estimate.runs} runs took" if estimate.runs else "by a few steps"
                found[method] = f"about {duration(estimate.seconds)}, {how}"
            task.advance(1)
    return found


_CHECKS: dict[str, Callable[[Path, Path | None], dict[str, Any]]] = {
    "machine": _machine,
    "data sets": _data,
    "evaluators": _left_out,
    f"time of a run on {_TIMED[0]}, profile {_TIMED[1]}": _times,
}
