"""``dpbench doctor`` and completion: what this machine has, and what can be typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from dpbench.core import registry
from dpbench.core.registry import entries
from dpbench.data.catalog import CATALOG
from dpbench.data.sets.mnist import FILES
from dpbench.runs import request
from tests.support.command import Command


@pytest.fixture
def found(
    dpbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, dict[str, str]]:
    """What is said of a machine that has MNIST and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DPBENCH_INCEPTION", raising=False)
    (tmp_path / "data/mnist").mkdir(parents=True)
    for name in FILES:
        (tmp_path / "data/mnist" / name).touch()
    told: dict[str, dict[str, str]] = json.loads(
        dpbench("doctor", "--quick", "--json", "--data-root", "data").out
    )
    assert not (tmp_path / "cache").exists(), "nothing is downloaded or made"
    return told


def test_what_is_here_is_told_from_what_is_not_and_how_to_get_it(
    found: dict[str, dict[str, str]],
) -> None:
    data = found["data sets"]
    assert list(data) == list(CATALOG)
    assert data["mnist"] == "here: data/mnist"
    assert data["cifar10"] == "not here: downloaded when it is first used, 170.5 MB"
    assert data["celeba"].startswith("not here: get img_align_celeba.zip")
    assert data["digits"] == "here: scikit-learn"
    assert "DPBENCH_INCEPTION" in found["evaluators"]["fidelity"]
    assert found["machine"]["cores"].isdecimal()
    assert "GiB free" in found["machine"]["cache"]


def test_weights_that_are_named_and_not_there_are_said_and_end_nothing(
    dpbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPBENCH_INCEPTION", "/nowhere.pth")
    ended = dpbench("doctor", "--quick", "--json")
    assert ended.code == 0
    assert "/nowhere.pth" in json.loads(ended.out)["evaluators"]["fidelity"]


def test_a_folder_that_cannot_be_written_is_said_with_what_to_do(
    dpbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    monkeypatch.setattr(os, "access", lambda folder, mode: not str(folder).startswith("/proc"))
    told = json.loads(dpbench("doctor", "--quick", "--json").out)
    assert told["machine"]["cache"].endswith(
        "cannot be written: name another place with XDG_CACHE_HOME"
    )


def test_the_time_of_each_method_is_estimated(
    dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {name: entries("method")[name] for name in ("toy", "real")}
    assert request.entries is registry.entries  # bound before it is replaced for the command
    there = registry.entries
    monkeypatch.setattr(registry, "entries", lambda kind: few if kind == "method" else there(kind))
    ended = dpbench("doctor")
    assert ended.code == 0
    lines = {line.split()[0]: line for line in ended.out.splitlines() if line.strip()}
    assert "by a few steps" in lines["toy"] and "about" in lines["real"]


def completed(words: str, count: int) -> list[str]:
    code = "import sys; sys.argv = ['dpbench']; from dpbench.cli import main; main()"
    environment = {
        **os.environ,
        "_DPBENCH_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(count),
    }
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    return ended.stdout.split()


def test_commands_options_and_names_are_completed() -> None:
    assert completed("dpbench rel", 1) == ["release"]
    assert completed("dpbench run --meth", 2) == ["--method"]
    variants = ["dpsyngen-cleaning", "dpsyngen-coarse"]
    assert completed("dpbench run --method dpsyngen-", 3) == variants
    assert (
        "--install-completion"
        in subprocess.run(
            [sys.executable, "-m", "dpbench", "--help"], capture_output=True, text=True
        ).stdout
    )
