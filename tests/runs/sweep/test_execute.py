from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from dpbench.records.run_record import find_records, read_record
from dpbench.runs.sweep import execute
from tests.support.command import TOY, Command, Ended
from tests.support.processes import (
    ForkedStart,
    dpbench_forked,
    hold_at_step,
    killed_at_last,
    wait_for,
)
from tests.support.sweeps import THREE, at, column, interrupt


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
    assert ended.err.count("a few steps") == 3
    plan = dpbench(*THREE, "--dry-run", "--json")
    assert column(plan, "state") == ["new"] * 3 and column(plan, "measured_runs") == [0] * 3
    assert not ends and not list(tmp_path.iterdir())


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
signal.signal(signal.SIGTERM, saved)
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


def test_a_signal_stops_a_sweep_in_processes_and_the_same_command_ends_it(
    dpbench: Command, toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = (*THREE[:-1], "0,1", "--evaluators", "toy", "--json")
    out, err, reached = tmp_path / "out", tmp_path / "err", tmp_path / "reached"

    # the sweep is a fork, and its runs are forks of that
    def patch() -> None:
        execute.start = ForkedStart(lambda _: hold_at_step(2, reached))  # type: ignore[assignment]

    with killed_at_last(dpbench_forked(*two, out=out, err=err, before=patch)) as process:
        wait_for(reached.exists, process)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130, err.read_text()
    assert [cell["status"] for cell in json.loads(out.read_text())] == ["interrupted", "not run"]
    monkeypatch.setattr(execute, "start", ForkedStart())
    again = dpbench(*two)
    assert again.code == 0 and column(again, "status") == ["done", "done"]
    assert "run 1 of 2: toy on digits, epsilon 0.001, seed 0; about" in again.err
    assert all(read_record(file).status == "complete" for file in find_records(tmp_path))


def test_an_evaluator_that_failed_is_all_that_is_called_again(
    dpbench: Command, toy: ModuleType, ends: list[Ended]
) -> None:
    def fail(count: int) -> None:
        if count == 2:
            raise ValueError("out of memory")

    toy.HOOKS["evaluate"] = fail
    ended = dpbench(*THREE, "--json")
    assert ended.code == 1
    assert column(ended, "status") == ["done", "failed", "done"]
    assert column(ended, "error") == [None, "toy: ValueError: out of memory", None]
    calls = dict(toy.CALLS)
    again = dpbench(*THREE, "--json")
    assert again.code == 0 and column(again, "status") == ["skipped", "done", "skipped"]
    assert toy.CALLS == {**calls, "evaluate": 4}
