from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dpbench.core.errors import UserError
from dpbench.core.progress import Silent
from dpbench.data.load import load
from dpbench.runs.estimates import TimeEstimates
from dpbench.runs.request import PlannedRun, RunRequest, plan
from dpbench.runs.sweep import execute
from dpbench.runs.sweep import grid as grids
from dpbench.runs.sweep.grid import Grid
from tests.support.command import Command
from tests.support.datasets import encoded, put
from tests.support.sweeps import COMMON, GRID, keys, mistakes, planned


def test_lists_are_separated_by_commas_and_may_be_repeated() -> None:
    assert grids.parse_words(["a, b", "c,a,"]) == ("a", "b", "c")
    assert grids.parse_numbers(["1,inf", "0.5"]) == (1.0, math.inf, 0.5)
    assert grids.parse_seeds(["7,0-2", "5"]) == (7, 0, 1, 2, 5)
    assert grids.parse_seeds(["-1"]) == (-1,), "it is for the plan to refuse it"


@pytest.mark.parametrize("text", ["a", "1.5", "2-1", "1-", "1-2-3"])
def test_what_is_no_seed_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--seeds takes whole numbers and ranges such as 0,1 or"):
        grids.parse_seeds([text])


@pytest.mark.parametrize("text", ["0-99999999", "0-4999,7-5000", "0-" + "9" * 19])
def test_more_seeds_than_a_sweep_may_have_are_refused_before_they_are_expanded(text: str) -> None:
    with pytest.raises(UserError, match="--seeds are more than 5,000: sweep over fewer at a time"):
        grids.parse_seeds([text])
    with pytest.raises(UserError, match="--seeds takes whole numbers"):
        grids.parse_seeds(["9" * 5000])


def test_more_runs_than_a_sweep_may_have_are_refused_before_they_are_planned(
    toy: ModuleType, tmp_path: Path
) -> None:
    many = replace(GRID, epsilons=tuple(map(float, range(1, 101))), seeds=tuple(range(51)))
    assert mistakes(many, tmp_path) == [
        "these are 5,100 runs; a sweep has at most 5,000: make several"
    ]


def test_a_grid_has_every_combination_and_what_is_not_private_once(
    toy: ModuleType, tmp_path: Path
) -> None:
    grid = replace(GRID, methods=("toy", "real"), epsilons=(0.001, 0.002), seeds=(0, 1))
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

    def count(request: RunRequest) -> PlannedRun:
        asked.append(request)
        return plan(request)

    monkeypatch.setattr(grids, "plan", count)
    epsilons = grids.parse_numbers(["0.001,1e-3"])
    assert len(planned(replace(GRID, epsilons=epsilons, seeds=(0, 0)), tmp_path)) == len(asked) == 1


def test_a_data_set_is_loaded_once(
    toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []

    def count(name: str, *others: Any) -> Any:
        loaded.append(name)
        return load(name, *others)

    monkeypatch.setattr(grids, "load", count)
    planned(replace(GRID, methods=("toy", "real"), seeds=(0, 1)), tmp_path)
    assert loaded == ["digits"]


def test_a_setting_goes_to_the_methods_that_have_it(toy: ModuleType, tmp_path: Path) -> None:
    common = replace(COMMON, settings=("steps=2", "clipping_norm=3"))
    cells = planned(replace(GRID, methods=("toy", "class-mean", "real"), common=common), tmp_path)
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
    starts = (
        "Unknown method 'tom'",
        "toy plans at least 16,000",
        "epsilon must be above 0, got -1",
    )
    for start in (*starts, "Unknown dataset 'digit'"):
        assert len([line for line in told if line.startswith(start)]) == 1, told
    assert "(toy on digits, epsilon 0.001, seed 0, and 1 more)" in " ".join(told)
    assert not any("\n" in line for line in told)


def test_a_setting_that_no_method_has_is_a_mistake(toy: ModuleType, tmp_path: Path) -> None:
    common = replace(COMMON, settings=("stpes=2",))
    told = ["--set stpes: no method of this sweep has that hyper-parameter"]
    assert mistakes(replace(GRID, common=common), tmp_path) == told
    # one that is not known might have it
    (unknown,) = mistakes(replace(GRID, methods=("toy", "tom"), common=common), tmp_path)
    assert "tom" in unknown


def test_bad_data_is_a_mistake_beside_the_others(
    toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise UserError("there are no digits")

    monkeypatch.setattr(grids, "load", missing)
    told = mistakes(replace(GRID, epsilons=(0.001, -1)), tmp_path)
    assert told[0].startswith("epsilon must be above 0, got -1")
    assert told[1:] == ["there are no digits"]


def test_a_cell_is_run_with_all_that_was_asked(
    dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = RunRequest(
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
        published=True,
        public="digits",
        evaluators=("toy", "audit"),
    )
    for field in fields(RunRequest)[2:]:
        assert getattr(request, field.name) != field.default, f"{field.name} is not tried"
    asked: list[Any] = []

    def remember(*arguments: object, **_: object) -> None:
        asked.extend(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr("dpbench.runs.request.plan", remember)
    dpbench(*execute.run_command(request, Path("here"), Path("there"), debug=True))
    assert asked[0] == request


def test_a_record_that_cannot_be_read_is_a_mistake_of_its_cell(
    toy: ModuleType, tmp_path: Path
) -> None:
    (cell,) = planned(GRID, tmp_path)
    cell.folder.mkdir(parents=True)
    (cell.folder / "record.json").write_text("{}")
    (told,) = mistakes(GRID, tmp_path)
    assert f"{cell.folder}/record.json is not a record" in told and "remove it" in told
    # of another run it does not matter
    assert len(planned(replace(GRID, seeds=(1,)), tmp_path)) == 1
    TimeEstimates(tmp_path)


def test_folders_of_one_name_are_data_sets_of_their_own(toy: ModuleType, tmp_path: Path) -> None:
    """Records know the last part of a path only; an open folder of that name is another one."""
    folders = [tmp_path / place / "pets" for place in ("here", "there")]
    for level, folder in enumerate(folders):
        for number in range(30):  # the shade says which image it is, and of which folder
            pixels = np.full((16, 16), 100 * level + number, np.uint8)
            put(folder / ("cat", "dog")[number % 2] / f"{number}.png", encoded(pixels))
    names = tuple(f"imagefolder:{folder}" for folder in folders)
    cells = planned(replace(GRID, datasets=names), tmp_path / "runs")
    assert [cell.planned.request.dataset for cell in cells] == list(names)
    assert {cell.spec.dataset for cell in cells} == {"imagefolder:pets"}
    assert [cell.spec.dataset_hash for cell in cells] == [
        load(name, None, Silent()).content_hash for name in names
    ]
    assert cells[0].spec.id != cells[1].spec.id
