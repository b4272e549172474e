"""Runs with ``--reproducible``: the same id gives the same bytes on one machine."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from dpbench.privacy.clipping import selection
from dpbench.privacy.clipping.selection import Executions
from dpbench.runs import steps
from tests.support.command import TOY, Command

TRAINED = (*TOY, "--reproducible", "--set", "steps=20")


def check_the_stopwatch_changes_nothing(dpbench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    engines, found = set(), set()
    for fastest in ("vmap", "loop"):
        monkeypatch.setattr(
            selection, "_copies_per_s", lambda *of, best=fastest: 9.0 if of[3] == best else 1.0
        )
        assert dpbench(*TRAINED, "--out", fastest).code == 0
        chosen = json.loads(Path(fastest, "record.json").read_text())["resolved"]["gradients"]
        engines.add(json.dumps(chosen))
        found.add(Path(fastest, "checkpoint.pt").read_bytes())
    assert len(engines) == len(found) == 1


def test_the_stopwatch_changes_nothing(
    dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    check_the_stopwatch_changes_nothing(dpbench, monkeypatch)


def test_an_engine_by_the_stopwatch_is_noticed(
    dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")

    def timed(*arguments: object) -> Executions:
        return Executions(*arguments[:5])  # type: ignore[arg-type]

    monkeypatch.setattr(steps, "Executions", timed)
    with pytest.raises(AssertionError):
        check_the_stopwatch_changes_nothing(dpbench, monkeypatch)


def test_an_engine_cannot_be_asked_for(dpbench: Command, toy: ModuleType) -> None:
    ended = dpbench(*TRAINED, "--engine", "vmap")
    assert ended.code == 2 and "leave --engine out" in ended.err
    assert list(Path().iterdir()) == []
