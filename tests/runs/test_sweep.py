from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dpbench.core.errors import UserError
from dpbench.core.progress import Silent
from dpbench.data.load import load
from dpbench.records.run_record import find_records, read_record
from dpbench.runs.request import PlannedRun, RunRequest, plan
from dpbench.runs.sweep import execute
from dpbench.runs.sweep import grid as grids
from dpbench.runs.sweep.estimates import TimeEstimate, TimeEstimates
from dpbench.runs.sweep.grid import Cell, Grid
from tests.support.command import PLUGINS, TOY, Command, Ended

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


# --- what is asked for


def test_lists_are_separated_by_commas_and_may_be_repeated() -> None:
    assert grids.parse_words(["a, b", "c,a,"]) == ("a", "b", "c")
    assert grids.parse_numbers(["1,inf", "0.5"]) == (1.0, math.inf, 0.5)
    assert grids.parse_seeds(["7,0-2", "5"]) == (7, 0, 1, 2, 5)
    assert grids.parse_seeds(["-1"]) == (-1,), "it is for the plan to refuse it"


@pytest.mark.parametrize("text", ["a", "1.5", "2-1", "1-", "1-2-3"])
def test_what_is_no_seed_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--seeds takes whole numbers and ranges such as 0,1 or"):
        grids.parse_seeds([text])


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
    starts = ("Unknown method 'tom'", "toy plans 16,000", "epsilon must be above 0, got -1")
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


# --- what is there, and how long the rest will take


@pytest.fixture
def ends(dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[Ended]:
    """How the runs of a sweep ended, which are in this process: it is quicker, and has hooks."""
    found: list[Ended] = []

    def in_this_process(arguments: list[str], interrupted: Callable[[], bool]) -> int:
        found.append(dpbench(*arguments))
        return found[-1].code

    monkeypatch.setattr(execute, "run_in_process", in_this_process)
    return found


def interrupt(*_: object) -> None:
    signal.raise_signal(signal.SIGINT)


def at(number: int, action: Callable[[], None]) -> Callable[[int], None]:
    return lambda count: action() if count == number else None


def column(ended: Ended, name: str) -> list[Any]:
    return [cell[name] for cell in json.loads(ended.out, parse_constant=pytest.fail)]


def test_complete_runs_are_skipped_and_the_others_run(
    dpbench: Command, ends: list[Ended], tmp_path: Path
) -> None:
    one = dpbench(*TOY, "--seed", 1, "--reproducible")
    assert one.code == 0
    before = {file: file.read_bytes() for file in find_records(tmp_path)}
    ended = dpbench(*THREE, "--json")
    assert ended.code == 0
    assert column(ended, "status") == ["done", "skipped", "done"]
    assert len(ends) == 2
    assert all(file.read_bytes() == content for file, content in before.items())
    for folder, name in zip(column(ended, "folder"), column(ended, "id"), strict=True):
        record = read_record(tmp_path / folder / "record.json")
        assert (record.status, record.spec.id) == ("complete", name)
    again = dpbench(*THREE, "--json")
    assert column(again, "status") == ["skipped"] * 3 and len(ends) == 2


def test_a_dry_run_says_what_would_run_and_writes_nothing(
    dpbench: Command, ends: list[Ended], tmp_path: Path
) -> None:
    ended = dpbench(*THREE, "--dry-run")
    assert ended.code == 0 and not ended.out
    assert "3 to run, 0 to resume, 0 complete; about" in ended.err
    assert ended.err.count("training alone") == 3
    plan = dpbench(*THREE, "--dry-run", "--json")
    assert column(plan, "state") == ["new"] * 3 and column(plan, "measured_runs") == [0] * 3
    assert not ends and not list(tmp_path.iterdir())


def test_time_is_that_of_complete_runs_like_it_less_what_is_done(
    toy: ModuleType, dpbench: Command, tmp_path: Path
) -> None:
    first, second = planned(replace(GRID, seeds=(0, 1)), tmp_path)
    longer = planned(replace(GRID, common=replace(COMMON, settings=("steps=8",))), tmp_path)[0]
    estimates = TimeEstimates(tmp_path)
    assert estimates.of(first) == TimeEstimate(0.0, 0), "the toy has nothing to probe"
    assert dpbench(*execute.run_command(first.planned.request, tmp_path, None)).code == 0
    record = read_record(first.folder / "record.json")
    estimates.learn(record)
    for known in (estimates, TimeEstimates(tmp_path)):
        assert known.of(second) == TimeEstimate(sum(record.timings.values()), 1)
        assert known.of(longer).runs == 0
        half = replace(record, status="started", timings={"fit": record.timings["fit"]})
        left = known.of(replace(second, earlier=half))
        assert left.seconds == pytest.approx(record.timings["sample"] + record.timings["toy"])
        assert known.of(replace(first, earlier=record)) == TimeEstimate(0.0, 0)
    half_known = TimeEstimates(tmp_path / "elsewhere")
    half_known.learn(half)
    assert half_known.of(second).runs == 0, "a run that is not complete tells no time"


def test_training_is_probed_once_for_all_seeds(
    toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = planned(replace(GRID, seeds=(0, 1)), tmp_path)
    probed = iter([7.0])
    monkeypatch.setattr(PlannedRun, "estimated_seconds", property(lambda self: next(probed)))
    estimates = TimeEstimates(tmp_path)
    assert [estimates.of(cell) for cell in cells] == [TimeEstimate(7.0, 0)] * 2


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


# --- how runs end


def test_mistakes_are_lines_and_nothing_runs(
    dpbench: Command, ends: list[Ended], tmp_path: Path
) -> None:
    ended = dpbench(*THREE, "--methods", "tom", "--eps", "-1")
    assert ended.code == 2
    lines = ended.err.splitlines()
    assert sum(line.startswith("Error: ") for line in lines) == 2
    assert any("'tom'" in line for line in lines) and any("got -1" in line for line in lines)
    assert not ended.out and not ends and not list(tmp_path.iterdir())


def test_a_run_that_fails_stops_no_other_and_is_tried_again(
    dpbench: Command, toy: ModuleType, ends: list[Ended], tmp_path: Path
) -> None:
    def break_down() -> None:
        raise ValueError("the [hamster] is tired")

    toy.HOOKS["step"] = at(5, break_down)  # the first step of the second run
    ended = dpbench(*THREE)
    assert ended.code == 1
    assert ended.err.endswith("Error: 1 of 3 runs failed: the same command tries them again\n")
    words = " ".join(ended.out.split())
    assert words.count("done") == 2 and "failed" in words
    assert "ValueError: the [hamster] is tired" in words
    toy.HOOKS.clear()
    again = dpbench(*THREE, "--json")
    assert again.code == 0
    assert column(again, "status") == ["skipped", "done", "skipped"]
    assert column(again, "error") == [None] * 3


def test_json_names_the_error_of_each_run(
    dpbench: Command, toy: ModuleType, ends: list[Ended]
) -> None:
    def break_down() -> None:
        raise ValueError("tired")

    toy.HOOKS["step"] = at(5, break_down)
    ended = dpbench(*THREE, "--json")
    assert ended.code == 1
    assert column(ended, "error") == [None, "ValueError: tired", None]
    assert column(ended, "status") == ["done", "failed", "done"]


def test_an_interrupted_sweep_goes_on_where_it_stopped(
    dpbench: Command, toy: ModuleType, ends: list[Ended], tmp_path: Path
) -> None:
    toy.HOOKS["step"] = at(7, interrupt)  # the third of four of the second run
    ended = dpbench(*THREE, "--json")
    assert ended.code == 130
    assert ended.err.endswith("Interrupted: the same command continues where this one stopped.\n")
    assert column(ended, "status") == ["done", "interrupted", "not run"]
    plan = dpbench(*THREE, "--dry-run", "--json")
    assert column(plan, "state") == ["complete", "resumed", "new"]
    again = dpbench(*THREE, "--json")
    assert again.code == 0
    assert column(again, "status") == ["skipped", "done", "done"]
    assert toy.CALLS["step"] == 12, "a step was done twice or left out"


def test_after_an_interruption_that_came_too_late_for_a_run_no_other_begins(
    dpbench: Command, ends: list[Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = execute.run_in_process

    def late(arguments: list[str], interrupted: Callable[[], bool]) -> int:
        code = run(arguments, interrupted)
        interrupt()
        return code

    monkeypatch.setattr(execute, "run_in_process", late)
    ended = dpbench(*THREE, "--json")
    assert ended.code == 130
    assert column(ended, "status") == ["done", "not run", "not run"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [(2, "ended with exit code 2, for the reason that it printed"), (-9, "killed by SIGKILL")],
)
def test_a_run_that_ends_without_a_word_in_its_record_has_a_reason_too(
    dpbench: Command, toy: ModuleType, ends: list[Ended], tmp_path: Path, code: int, reason: str
) -> None:
    def break_down(step: int) -> None:
        raise ValueError("tired")

    toy.HOOKS["step"] = break_down
    with pytest.MonkeyPatch.context() as patch:
        assert column(dpbench(*THREE, "--json"), "error") == ["ValueError: tired"] * 3
        # what the records say is of the sweep before
        patch.setattr(execute, "run_in_process", lambda *_: code)
        ended = dpbench(*THREE, "--json")
    assert ended.code == 1
    assert column(ended, "error") == [reason] * 3


# --- processes


def starting(script: str) -> Callable[..., subprocess.Popen[bytes]]:
    """In place of ``start``: a process that runs a script, and says when it is ready."""

    def start(*_: object) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", script], start_new_session=True)

    return start


WAITS = """
import pathlib, signal, sys, time
def saved(*_):
    pathlib.Path("saved").touch()
    STOPS
signal.signal(signal.SIGINT, saved)
pathlib.Path("ready").touch()
time.sleep(60)
"""


def test_an_interruption_is_handed_on_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(execute, "start", starting(WAITS.replace("STOPS", "sys.exit(130)")))
    assert execute.run_in_process([], lambda: Path("ready").exists()) == 130
    assert Path("saved").exists()


def test_a_second_interruption_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    children: list[subprocess.Popen[bytes]] = []
    start = starting(WAITS.replace("STOPS", "pass"))

    def remembered(*_: object) -> subprocess.Popen[bytes]:
        children.append(start())
        return children[-1]

    def interrupted_twice() -> bool:
        if Path("saved").exists():
            raise KeyboardInterrupt  # as from the handler of signals
        return Path("ready").exists()

    monkeypatch.setattr(execute, "start", remembered)
    with pytest.raises(KeyboardInterrupt):
        execute.run_in_process([], interrupted_twice)
    assert children[0].returncode == -signal.SIGKILL


@pytest.mark.slow
def test_a_signal_stops_a_sweep_in_processes_and_the_same_command_ends_it(tmp_path: Path) -> None:
    paths = [str(PLUGINS), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    # long enough to be caught in the middle
    two = (*THREE[:-1], "0,1", "--set", "steps=400", "--json")
    command = [sys.executable, "-m", "dpbench", *two]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 300
        while not list(tmp_path.rglob("ledger.json")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert [cell["status"] for cell in json.loads(out)] == ["interrupted", "not run"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert [cell["status"] for cell in json.loads(ended.stdout)] == ["done"] * 2
    assert "run 1 of 2: toy on digits, epsilon 0.001, seed 0; about" in ended.stderr
    assert all(read_record(file).status == "complete" for file in find_records(tmp_path))
