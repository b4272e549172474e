"""However a run ends, it says so in a line, and the same command continues to the same bytes."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from types import ModuleType

import pytest

from dpbench.runs import steps
from dpbench.training import loop
from tests.support.command import CONTINUES, TOY, Command, at, contents, one_error


@pytest.mark.parametrize(
    ("number", "where", "code", "resuming"),
    [
        (signal.SIGTERM, "step", 143, "resuming: training from step 4 of 4"),
        (signal.SIGHUP, "evaluate", 129, "resuming: fit and sample were done"),
    ],
)
def test_other_signals_end_a_run_as_ctrl_c_does(
    dpbench: Command,
    toy: ModuleType,
    tmp_path: Path,
    whole: dict[str, bytes],
    number: int,
    where: str,
    code: int,
    resuming: str,
) -> None:
    count = 3 if where == "step" else 1
    toy.HOOKS[where] = at(count, lambda: signal.raise_signal(number))
    ended = dpbench(*TOY, "--reproducible", "--out", "here")
    assert (ended.code, ended.err.endswith(CONTINUES)) == (code, True)
    assert "resuming" not in ended.err
    ended = dpbench(*TOY, "--reproducible", "--out", "here")
    assert ended.code == 0 and f"\n{resuming}\n" in ended.err
    assert contents(tmp_path / "here") == whole


@pytest.mark.parametrize("place", ["fit", "checkpoint", "sample"])
def test_a_full_disk_is_said_to_be_full_and_the_same_command_continues(
    dpbench: Command,
    toy: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole: dict[str, bytes],
    place: str,
) -> None:
    module, name = {
        "fit": (loop, "write_bytes"),
        "checkpoint": (steps, "write_bytes"),
        "sample": (steps, "write_arrays"),
    }[place]

    def full(file: Path, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(file))

    with monkeypatch.context() as patch:
        patch.setattr(module, name, full)
        error = one_error(dpbench(*TOY, "--reproducible", "--out", "here"))
    assert error.startswith("Error: toy failed: no space left on device: here/")
    assert error.endswith(": make room, and give the same command, which continues")
    assert dpbench(*TOY, "--reproducible", "--out", "here").code == 0
    assert contents(tmp_path / "here") == whole


def test_a_folder_that_is_removed_meanwhile_is_named(dpbench: Command, toy: ModuleType) -> None:
    toy.HOOKS["step"] = at(2, lambda: shutil.rmtree("here"))
    error = one_error(dpbench(*TOY, "--out", "here"))
    assert "here was removed while the run was at work there" in error
    assert dpbench(*TOY, "--out", "here").code == 0
