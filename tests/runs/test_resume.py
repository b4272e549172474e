from __future__ import annotations

import base64
import functools
import itertools
import json
import os
import shutil
import signal
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dpbench.core.signals import deferred
from dpbench.privacy import dpsgd
from dpbench.runs import execute, steps
from dpbench.runs.folder import SAMPLES
from dpbench.runs.training_folder import TRAINING
from dpbench.training import loop
from tests.support.command import CONTINUES, TOY, Command, at, contents, saved
from tests.support.processes import dpbench_forked, hold_at_step, killed_at_last, wait_for

KEY = "noise.key"


def record(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "record.json").read_text())
    return content


def interrupt(*_: object) -> None:
    signal.raise_signal(signal.SIGINT)


# --- Ctrl-C


@pytest.mark.parametrize("where", ["step", "sample", "evaluate"])
def test_a_run_interrupted_anywhere_continues_to_the_same_bytes(
    dpbench: Command, toy: ModuleType, tmp_path: Path, whole: dict[str, bytes], where: str
) -> None:
    toy.HOOKS[where] = at(3 if where == "step" else 1, interrupt)
    ended = dpbench(*TOY, "--reproducible", "--out", "here")
    assert ended.code == 130
    assert ended.err.endswith(CONTINUES) and "Error" not in ended.err
    assert record(tmp_path / "here")["status"] == "started"
    assert dpbench(*TOY, "--reproducible", "--out", "here").code == 0
    assert contents(tmp_path / "here") == whole
    assert toy.CALLS["step"] == 4, "a step was done twice or left out"
    assert record(tmp_path / "here")["done"] == ["fit", "sample", "toy"]


def test_an_interruption_while_data_is_loaded_writes_nothing(
    dpbench: Command, toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "load", interrupt)
    ended = dpbench(*TOY)
    assert ended.code == 130
    assert ended.err.endswith(CONTINUES)
    assert not list(tmp_path.iterdir())


def test_other_commands_promise_nothing_when_interrupted(
    dpbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dpbench.cli.listing._list_datasets", interrupt)
    ended = dpbench("list", "datasets")
    assert (ended.code, ended.err) == (130, "Interrupted.\n")


def test_the_first_interrupt_finishes_the_step_and_saves_it(
    dpbench: Command, toy: ModuleType, tmp_path: Path
) -> None:
    toy.HOOKS["step"] = at(3, interrupt)
    assert dpbench(*TOY, "--out", "here").code == 130
    stage = saved(tmp_path / "here" / TRAINING / "training.stage")
    assert stage["done"] == 3


def test_the_second_interrupt_ends_at_once_and_loses_no_more_than_the_stage(
    dpbench: Command, toy: ModuleType, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    def twice() -> None:
        interrupt()
        interrupt()
        pytest.fail("the second interrupt was held back")

    toy.HOOKS["step"] = at(3, twice)
    assert dpbench(*TOY, "--reproducible", "--out", "here").code == 130
    assert not (tmp_path / "here" / TRAINING / "training.stage").exists()
    assert dpbench(*TOY, "--reproducible", "--out", "here").code == 0
    assert contents(tmp_path / "here") == whole


# --- death


def in_a_child(action: Callable[[], object]) -> int:
    """Do something in a copy of this process; its exit code, negative for a signal."""
    child = os.fork()
    if not child:
        try:
            with pytest.MonkeyPatch.context() as patch:
                # threads do not survive a fork, and results do not depend on their number
                patch.setattr(dpsgd, "map_on_cores", lambda work, items, device: map(work, items))
                action()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_run_killed_at_any_write_continues_to_the_same_bytes(
    dpbench: Command,
    toy: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole: dict[str, bytes],
) -> None:
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    command = (*TOY, "--reproducible", "--out", "here")
    replace = Path.replace

    def run_until(last: int) -> None:
        writes = itertools.count(1)

        def dying_replace(self: Path, target: Path) -> Path:
            if next(writes) < last:
                return replace(self, target)
            die()
            raise AssertionError

        monkeypatch.setattr(Path, "replace", dying_replace)
        dpbench(*command)

    for write in itertools.count(1):
        code = in_a_child(lambda number=write: run_until(number))
        assert code in (0, -signal.SIGKILL)
        if code == 0:
            break
        assert dpbench(*command).code == 0, f"killed at write {write}"
        assert contents(tmp_path / "here") == whole
        assert len(record(tmp_path / "here")["measurements"]) == 2
        assert not list((tmp_path / "here").glob(".*")), "rubbish is left"
        shutil.rmtree(tmp_path / "here")
    assert write > 10, "the run was not killed at all its writes"


@pytest.mark.parametrize("place", ["rmtree", "save_grid"])
def test_so_does_one_killed_between_writes(
    dpbench: Command,
    toy: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole: dict[str, bytes],
    place: str,
) -> None:
    command = (*TOY, "--reproducible", "--out", "here")

    def run() -> None:
        monkeypatch.setattr(shutil if place == "rmtree" else steps, place, die)
        dpbench(*command)

    assert in_a_child(run) == -signal.SIGKILL
    assert dpbench(*command).code == 0
    assert contents(tmp_path / "here") == whole
    assert not (tmp_path / "here" / TRAINING).exists()


# --- the secret key


def every_byte(folder: Path) -> Iterator[bytes]:
    """All files below a folder, and what is inside of archives."""
    for file in folder.rglob("*"):
        if file.is_file():
            yield file.read_bytes()
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as archive:
                    yield from (archive.read(name) for name in archive.namelist())


def spellings(key: bytes) -> list[bytes]:
    encoded = base64.b64encode(key).rstrip(b"=")
    pickled = key.decode("latin1").encode()  # by the protocol that torch.save uses
    return [key, key.hex().encode(), key.hex().upper().encode(), encoded, pickled]


def test_the_key_outlives_an_interruption_and_not_the_training(
    dpbench: Command, toy: ModuleType, tmp_path: Path
) -> None:
    toy.HOOKS["step"] = at(3, interrupt)
    assert dpbench(*TOY, "--out", "here").code == 130
    file = tmp_path / "here" / TRAINING / KEY
    key = file.read_bytes()
    assert len(key) == 32
    for secret in (file, file.with_name("training.stage")):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert any(key in content for content in every_byte(tmp_path))

    # whoever has the same key continues to the same samples
    shutil.copytree(tmp_path / "here", tmp_path / "twin")
    toy.HOOKS.clear()
    for folder in ("here", "twin"):
        assert dpbench(*TOY, "--out", folder).code == 0
    assert contents(tmp_path / "here") == contents(tmp_path / "twin")

    assert not (tmp_path / "here" / TRAINING).exists()
    for content in every_byte(tmp_path):
        assert not any(spelling in content for spelling in spellings(key))


def test_a_key_that_cannot_be_destroyed_is_no_complete_run(
    dpbench: Command, toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path, *options: object) -> None:
        raise OSError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        assert dpbench(*TOY, "--out", "here").code == 1
    assert record(tmp_path / "here")["status"] == "failed"
    assert dpbench(*TOY, "--out", "here").code == 0
    assert not (tmp_path / "here" / TRAINING).exists()


def test_only_reproducible_runs_repeat_themselves(
    dpbench: Command,
    toy: ModuleType,
    tmp_path: Path,
    whole: dict[str, bytes],
    uninterrupted: Path,
) -> None:
    def samples(*options: object) -> bytes:
        assert dpbench(*TOY, *options, "--out", "again", "--overwrite").code == 0
        return contents(tmp_path / "again")[SAMPLES]

    assert samples("--reproducible") == whole[SAMPLES]
    assert samples("--reproducible", "--seed", 1) != whole[SAMPLES]
    secret = samples()
    assert secret != whole[SAMPLES]
    assert samples() != secret
    assert record(tmp_path / "again")["privacy"]["release"] == "valid"
    assert record(uninterrupted)["privacy"]["release"].startswith("void for release")


# --- runs that are complete, and runs under way


def test_a_complete_run_is_not_run_again_unless_told(
    dpbench: Command, toy: ModuleType, tmp_path: Path
) -> None:
    assert dpbench(*TOY, "--out", "here").code == 0
    first = contents(tmp_path / "here"), record(tmp_path / "here")
    ended = dpbench(*TOY, "--out", "here")
    assert ended.code == 0
    assert "this run is complete already: here (--overwrite runs it again)" in ended.err
    assert (contents(tmp_path / "here"), record(tmp_path / "here")) == first
    assert toy.CALLS["step"] == 4
    assert "second release" not in ended.err
    ended = dpbench(*TOY, "--out", "here", "--overwrite")
    assert ended.code == 0 and toy.CALLS["step"] == 8
    assert "this is a second release from the same private images" in ended.err


def test_overwriting_what_released_nothing_new_is_no_second_release(
    dpbench: Command, toy: ModuleType
) -> None:
    for options in ((), ("--overwrite",)):
        ended = dpbench(*TOY, "--reproducible", "--out", "here", *options)
        assert ended.code == 0 and "second release" not in ended.err


def test_a_run_measures_with_the_evaluators_asked_for_and_with_others_later(
    dpbench: Command, toy: ModuleType, tmp_path: Path
) -> None:
    assert dpbench(*TOY, "--out", "here", "--evaluators", "audit").code == 0
    first = record(tmp_path / "here")
    assert first["status"] == "complete" and first["done"] == ["fit", "sample", "audit"]
    assert "complete already" in dpbench(*TOY, "--out", "here", "--evaluators", "audit").err
    trained = toy.CALLS["step"]
    ended = dpbench(*TOY, "--out", "here")
    assert ended.code == 0 and "complete already" not in ended.err
    second = record(tmp_path / "here")
    assert second["status"] == "complete" and second["done"] == [*first["done"], "toy"]
    assert second["measurements"][: len(first["measurements"])] == first["measurements"]
    assert toy.CALLS["step"] == trained, "what was trained and drawn is measured, not made again"


@pytest.mark.parametrize("names", [",", "audit,nothing"])
def test_evaluators_that_are_none_are_refused_before_anything_is_done(
    dpbench: Command, toy: ModuleType, tmp_path: Path, names: str
) -> None:
    ended = dpbench(*TOY, "--out", "here", "--evaluators", names)
    assert ended.code == 2 and ended.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_two_processes_cannot_be_at_work_in_one_folder(
    dpbench: Command, toy: ModuleType, tmp_path: Path
) -> None:
    ends = []

    def run_the_same() -> None:
        ends.append(dpbench(*TOY, "--out", "here"))

    toy.HOOKS["step"] = at(3, run_the_same)
    assert dpbench(*TOY, "--out", "here").code == 0
    assert ends[0].code == 2
    assert "another process is at work in here" in ends[0].err


# --- the real thing, from outside

REAL = (
    *("run", "--method", "dpsyngen", "--dataset", "digits", "--profile", "smoke"),
    *("--eps", "0.001", "--reproducible", "--set", "steps=10", "--evaluators", "cas-predictor"),
)


@pytest.mark.slow
def test_a_signal_in_the_middle_of_private_training_changes_no_sample(
    dpbench: Command, tmp_path: Path
) -> None:
    assert dpbench(*REAL, "--out", "whole").code == 0
    for number in (signal.SIGINT, signal.SIGKILL):
        here, err, reached = (tmp_path / f"{name}{number}" for name in ("here", "err", "reached"))
        before = functools.partial(hold_at_step, 4, reached)
        with killed_at_last(
            dpbench_forked(*REAL, "--out", here, err=err, before=before)
        ) as process:
            wait_for(reached.exists, process)
            process.send_signal(number)
            code = process.wait()
        if number == signal.SIGKILL:
            assert code == -signal.SIGKILL
        else:
            assert code == 130
            assert err.read_text().endswith(CONTINUES)
            stage = saved(here / TRAINING / "private.stage")
            assert stage["done"] == 4
        assert record(here)["status"] == "started"
        assert dpbench(*REAL, "--out", here).code == 0
        assert contents(here) == contents(tmp_path / "whole")


def test_a_loop_outside_the_main_thread_runs_without_signals() -> None:
    ends = []

    def work() -> None:
        with deferred() as interrupted:
            assert not interrupted()
            ends.append("well")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ends == ["well"]
