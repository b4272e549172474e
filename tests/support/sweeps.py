"""Sweeps of the toy: grids, what is planned of them, and what is told."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpbench.core.progress import Silent
from dpbench.runs.request import RunRequest
from dpbench.runs.sweep import grid as grids
from dpbench.runs.sweep.grid import Cell, Grid
from tests.support.command import Ended

COMMON = RunRequest("", "", profile="smoke")
GRID = Grid(("toy",), ("digits",), (0.001,), (0,), COMMON)
THREE = (
    *("sweep", "--methods", "toy", "--datasets", "digits", "--profile", "smoke"),
    *("--eps", "0.001", "--reproducible", "--seeds", "0-2"),
)


def planned(grid: Grid, runs_dir: Path) -> list[Cell]:
    cells, mistakes = grids.plan_grid(grid, runs_dir, None, Silent())
    assert not mistakes
    return cells


def mistakes(grid: Grid, runs_dir: Path) -> list[str]:
    return grids.plan_grid(grid, runs_dir, None, Silent())[1]


def keys(cells: list[Cell]) -> list[tuple[str, float, int]]:
    return [(cell.spec.method, cell.spec.epsilon, cell.spec.seed) for cell in cells]


def interrupt(*_: object) -> None:
    signal.raise_signal(signal.SIGINT)


def at(number: int, action: Callable[[], None]) -> Callable[[int], None]:
    return lambda count: action() if count == number else None


def column(ended: Ended, name: str) -> list[Any]:
    return [cell[name] for cell in json.loads(ended.out, parse_constant=pytest.fail)]
