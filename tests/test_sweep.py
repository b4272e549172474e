from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import Command

from dpbench import run as runs
from dpbench import sweep
from dpbench.errors import UserError
from dpbench.progress import Silent
from dpbench.run import PlannedRun, Request
from dpbench.sweep import Cell, Grid

COMMON = Request("", "", profile="smoke")
TOY = Grid(("toy",), ("digits",), (0.001,), (0,), COMMON)
SWEEP = ("sweep", "--datasets", "digits", "--profile", "smoke", "--eps", "0.001")


def planned(grid: Grid, runs_dir: Path) -> list[Cell]:
    cells, mistakes = sweep.cells(grid, runs_dir, None, Silent())
    assert not mistakes
    return cells


def mistakes(grid: Grid, runs_dir: Path) -> list[str]:
    return sweep.cells(grid, runs_dir, None, Silent())[1]


def keys(cells: list[Cell]) -> list[tuple[str, float, int]]:
    return [(cell.spec.method, cell.spec.epsilon, cell.spec.seed) for cell in cells]


# --- what is asked for


def test_lists_are_separated_by_commas_and_may_be_repeated() -> None:
    assert sweep.words(["a, b", "c,a,"]) == ("a", "b", "c")
    assert sweep.numbers(["1,inf", "0.5"]) == (1.0, math.inf, 0.5)
    assert sweep.seeds(["7,0-2", "5"]) == (7, 0, 1, 2, 5)
    assert sweep.seeds(["-1"]) == (-1,), "it is for the plan to refuse it"


@pytest.mark.parametrize("text", ["a", "1.5", "2-1", "1-", "1-2-3"])
def test_what_is_no_seed_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--seeds takes whole numbers and ranges such as 0,1 or"):
        sweep.seeds([text])


def test_a_grid_has_every_combination_and_what_is_not_private_once(
    toy: ModuleType, tmp_path: Path
) -> None:
    grid = replace(TOY, methods=("toy", "real"), epsilons=(0.001, 0.002), seeds=(0, 1))
    cells = planned(grid, tmp_path)
    assert keys(cells) == [
        (method, epsilon, seed)
        for seed in (0, 1)
        for method, epsilon in (("toy", 0.001), ("toy", 0.002), ("real", math.inf))
    ]
    assert len({cell.spec.id for cell in cells}) == 6


def test_cells_that_are_the_same_are_planned_once(
    toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def count(request: Request) -> PlannedRun:
        asked.append(request)
        return runs.plan(request)

    monkeypatch.setattr(sweep, "plan", count)
    epsilons = sweep.numbers(["0.001,1e-3"])
    assert len(planned(replace(TOY, epsilons=epsilons, seeds=(0, 0)), tmp_path)) == len(asked) == 1


def test_a_data_set_is_loaded_once(
    toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []

    def count(name: str, *others: Any) -> Any:
        loaded.append(name)
        return runs.load(name, *others)

    monkeypatch.setattr(sweep, "load", count)
    planned(replace(TOY, methods=("toy", "real"), seeds=(0, 1)), tmp_path)
    assert loaded == ["digits"]


def test_a_setting_goes_to_the_methods_that_have_it(toy: ModuleType, tmp_path: Path) -> None:
    common = replace(COMMON, settings=("steps=2", "clipping_norm=3"))
    cells = planned(replace(TOY, methods=("toy", "class-mean", "real"), common=common), tmp_path)
    toy_args, mean_args, real_args = (cell.spec.method_args for cell in cells)
    assert toy_args["steps"] == 2 and "clipping_norm" not in toy_args
    assert mean_args == {"clipping_norm": 3.0} and not real_args


def test_all_mistakes_are_told_once_each(toy: ModuleType, tmp_path: Path) -> None:
    grid = Grid(
        ("toy", "tom", "dpdm"),
        ("digits", "digit"),
        (0.001, -1),
        (0, 1),
        replace(COMMON, settings=("steps=1000",)),
    )
    told = mistakes(grid, tmp_path)
    starts = ("Unknown method 'tom'", "toy plans 16,000", "epsilon must be above 0, got -1")
    for start in (*starts, "Unknown dataset 'digit'"):
        assert len([line for line in told if line.startswith(start)]) == 1, told
    assert "(toy on digits, epsilon 0.001, seed 0, and 1 more)" in " ".join(told)
    assert not any("\n" in line for line in told)


def test_a_setting_that_no_method_has_is_a_mistake(toy: ModuleType, tmp_path: Path) -> None:
    common = replace(COMMON, settings=("stpes=2",))
    told = ["--set stpes: no method of this sweep has that hyper-parameter"]
    assert mistakes(replace(TOY, common=common), tmp_path) == told
    # one that is not known might have it
    (unknown,) = mistakes(replace(TOY, methods=("toy", "tom"), common=common), tmp_path)
    assert "tom" in unknown


def test_bad_data_is_a_mistake_beside_the_others(
    toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise UserError("there are no digits")

    monkeypatch.setattr(sweep, "load", missing)
    told = mistakes(replace(TOY, epsilons=(0.001, -1)), tmp_path)
    assert told[0].startswith("epsilon must be above 0, got -1")
    assert told[1:] == ["there are no digits"]


def test_a_cell_is_run_with_all_that_was_asked(
    dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request(
        method="toy",
        dataset="digits",
        epsilon=0.1 + 0.2,
        delta=3e-6,
        adjacency="replace_one",
        seed=7,
        profile="smoke",
        settings=("steps=2", "learning_rate=-0.5"),
        reproducible=True,
        device="cpu",
        engine="loop",
    )
    for field in fields(Request)[2:]:
        assert getattr(request, field.name) != field.default, f"{field.name} is not tried"
    asked: list[Any] = []

    def remember(*arguments: object, **_: object) -> None:
        asked.extend(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "plan", remember)
    dpbench(*sweep.command(request, Path("here"), Path("there"), debug=True))
    assert asked[0] == request
