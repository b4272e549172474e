"""Time how long the command line takes to start, as whole processes."""

from __future__ import annotations

import functools
import subprocess
import sys
from dataclasses import dataclass

from dpbench.bench.timing import Spread, Timed, side_by_side
from dpbench.core.errors import RunFailed
from dpbench.core.progress import Progress

_BARE = "python -c pass"
# -P: a folder named dpbench in the working directory must not shadow the package
_DPBENCH = [sys.executable, "-P", "-m", "dpbench"]
_COMMANDS = {
    _BARE: [sys.executable, "-c", "pass"],
    "dpbench --help": [*_DPBENCH, "--help"],
    "dpbench list": [*_DPBENCH, "list"],
    "dpbench list methods --json": [*_DPBENCH, "list", "methods", "--json"],
}


@dataclass(frozen=True)
class StartupTiming:
    """One command.

    Attributes:
        command: Command line.
        seconds: Wall time from start to end of the process, median over the repeats.
        seconds_low: Shortest time.
        seconds_high: Longest time.
        ratio: Time relative to a bare interpreter.
    """

    command: str
    seconds: float
    seconds_low: float
    seconds_high: float
    ratio: float


def bench_startup(repeats: int, progress: Progress) -> list[StartupTiming]:
    """Run every command ``repeats`` times, after one warm-up.

    Raises:
        RunFailed: A command failed.
    """
    variants = {name: functools.partial(_run, command) for name, command in _COMMANDS.items()}
    with progress.task("starting", len(variants) * (repeats + 1), "processes") as task:
        timed = side_by_side(variants, repeats, task)
    return [_row(name, each, timed[_BARE]) for name, each in timed.items()]


def _run(command: list[str]) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)


def _row(name: str, timed: Timed, bare: Timed) -> StartupTiming:
    speed = timed.ratio(bare)
    if speed is None:
        raise RunFailed(f"{name if timed.reason else _BARE}: {timed.reason or bare.reason}")
    spread = Spread.of(timed.seconds)
    return StartupTiming(name, spread.median, spread.low, spread.high, 1 / speed)
