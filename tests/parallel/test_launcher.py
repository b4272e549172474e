"""Several processes of one run, by the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dpbench import cli
from dpbench.parallel import launcher
from dpbench.runs.training_folder import TRAINING
from tests.support.command import TOY, Command, saved
from tests.support.processes import (
    ForkedStart,
    dpbench_forked,
    hold_at_step,
    killed_at_last,
    wait_for,
)

REAL = (
    *("run", "--method", "dpsyngen", "--dataset", "digits", "--profile", "smoke"),
    *("--eps", "10", "--reproducible", "--set", "steps=10", "--evaluators", "audit"),
)


def weights(folder: Path) -> Tensor:
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    return torch.cat([part.flatten() for part in state.values()])


def record(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "record.json").read_text())
    return content


def assert_same_run(folder: Path, whole: Path) -> None:
    expected = weights(whole)
    assert float((weights(folder) - expected).norm()) <= 1e-5 * float(expected.norm())
    ours, theirs = record(folder), record(whole)
    assert ours["resolved"].pop("processes") == 2
    assert theirs["resolved"].pop("processes") == 1
    for content in (ours, theirs):
        # the audit is made by one process, of which the others do not wait for the end
        audited = {m["metric"]: m["value"] for m in content["measurements"]}
        assert audited["audit_alarms"] == 0 and audited["audit_sigma_ratio_low"] is not None
        for varying in ("timings", "environment", "artifacts", "measurements", "digest"):
            content.pop(varying)
        content["resolved"].pop("cores")
        content["resolved"].pop("sittings", None)  # one more where a run was interrupted
        content["resolved"]["pretrained"].pop("reused")  # the second finds what the first left
        for execution in content["resolved"]["gradients"].values():
            execution.pop("copies_per_s")
        content["cost"].pop("peak_memory_mb")
    assert ours == theirs
    assert ours["status"] == "complete"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process gives that nothing interrupts."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    # in this process, for what is imported on the way is there in all forks
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit, match="0"):
        patch.setattr(sys, "argv", ["dpbench", *REAL, "--out", str(folder)])
        cli.main()
    return folder


def forked_ranks(
    folder: Path, before: Callable[[Mapping[str, str]], None] = lambda environment: None
) -> Callable[[], None]:
    """What to do in a fork so that the ranks that it starts are forks too, and leave their ids."""

    def note(environment: Mapping[str, str]) -> None:
        (folder / f"rank{environment['RANK']}").write_text(str(os.getpid()))
        before(environment)

    def patch() -> None:
        launcher.start = ForkedStart(note)  # type: ignore[assignment]

    return patch


def by_this_launcher(command: tuple[object, ...], out: Path, err: Path) -> int:
    ranks = forked_ranks(out.parent)
    return dpbench_forked(*command, "--processes", 2, out=out, err=err, before=ranks).wait()


def by_torchrun(command: tuple[object, ...], out: Path, err: Path) -> int:
    torchrun = ("torch.distributed.run", "--nproc-per-node", "2", "-m", "dpbench")
    with out.open("w") as stdout, err.open("w") as stderr:
        started = [sys.executable, "-m", *torchrun, *map(str, command)]
        return subprocess.run(started, stdout=stdout, stderr=stderr).returncode


@pytest.mark.slow
@pytest.mark.parametrize("run", [by_this_launcher, by_torchrun])
def test_two_processes_give_the_weights_the_certificate_and_the_record_of_one(
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[[tuple[object, ...], Path, Path], int],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # without public weights
    here, out, err = (tmp_path / name for name in ("here", "out", "err"))
    assert run((*REAL, "--out", here, "--json"), out, err) == 0, err.read_text()
    assert json.loads(out.read_text()) == record(here)  # said once
    assert err.read_text().count("guarantee") == 1
    assert not record(here)["resolved"]["pretrained"]["reused"]
    assert_same_run(here, whole)


def test_what_is_started_is_a_process_of_its_own_with_an_end_to_watch(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with out.open("w") as stdout:
        started = launcher.start(("list", "profiles", "--json"), {"COLUMNS": "80"}, stdout.fileno())
        assert started.stdin is not None  # open until this process ends
        assert started.wait(60) == 0
        started.stdin.close()
    assert {"smoke", "claims"} <= {each["name"] for each in json.loads(out.read_text())}


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["0", "1", "Ctrl-C", "launcher"])
def test_a_signal_in_the_middle_ends_all_ranks_at_once_and_changes_no_weight(
    whole: Path, tmp_path: Path, victim: str
) -> None:
    here, reached, said = (tmp_path / name for name in ("here", "reached", "said"))
    command = (*REAL, "--processes", "2", "--out", here)

    def hold(environment: Mapping[str, str]) -> None:
        if victim not in ("0", "1") or environment["RANK"] == victim:
            hold_at_step(4, reached.with_name(f"reached{environment['RANK']}"))

    held = [victim] if victim in ("0", "1") else ["0", "1"]
    launched = dpbench_forked(*command, err=said, before=forked_ranks(tmp_path, hold))
    with killed_at_last(launched) as process:
        for rank in held:
            wait_for((tmp_path / f"reached{rank}").exists, process)
        ranks = [int((tmp_path / f"rank{rank}").read_text()) for rank in (0, 1)]
        if victim == "Ctrl-C":
            process.send_signal(signal.SIGINT)
        elif victim == "launcher":
            process.kill()
        else:
            os.kill(ranks[int(victim)], signal.SIGKILL)
        code = process.wait()
    err = said.read_text()
    if victim == "Ctrl-C":
        assert code == 130
        assert err.endswith("\nInterrupted: the same command continues where this one stopped.\n")
        stage = saved(here / TRAINING / "private.stage")
        assert stage["done"] == 4
    elif victim == "launcher":
        deadline = time.monotonic() + 60
        while any(Path(f"/proc/{rank}").exists() for rank in ranks):
            assert time.monotonic() < deadline, "ranks outlive the process that started them"
            time.sleep(0.1)
    else:
        assert code == 1
        last = err.rstrip("\n").split("\n")[-1]
        assert last.startswith(f"Error: rank {victim} of 2 died") and err.count("Error") == 1
        assert "the same command continues" in last
    assert record(here)["status"] == ("failed" if victim == "1" else "started")
    assert dpbench_forked(*command, before=forked_ranks(tmp_path)).wait() == 0
    assert_same_run(here, whole)


def test_a_mistake_is_said_once_by_all_processes(tmp_path: Path) -> None:
    mistaken = ("run", "--method", "dpsyn", "--dataset", "digits", "--processes", "2")
    said = tmp_path / "said"
    assert dpbench_forked(*mistaken, err=said, before=forked_ranks(tmp_path)).wait() == 2
    assert said.read_text().count("\n") == 1
    assert said.read_text().startswith("Error: Unknown method 'dpsyn'")


def test_one_process_is_no_process_more(dpbench: Command, toy: object) -> None:
    assert dpbench(*TOY, "--processes", 1).code == 0
    ended = dpbench(*TOY, "--processes", 0)
    assert ended.code == 2 and "'--processes'" in ended.err


def test_a_machine_is_asked_for_no_more_processes_than_it_can_bear(
    dpbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "start", lambda *_: pytest.fail("a process was started"))
    ended = dpbench(*TOY, "--processes", 2**40)
    assert ended.code == 2 and "--processes 1099511627776 is more than" in ended.err
