"""What a run makes sure of when it continues."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from dpbench.core.state import to_bytes
from dpbench.records.run_record import read_record
from dpbench.runs import steps
from dpbench.runs.folder import CHECKPOINT, SAMPLES
from tests.support.command import TOY, Command, interrupt, interrupted_at_step, one_error
from tests.support.digits import Bomb

HERE = (*TOY, "--out", "here")


def record() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path("here/record.json").read_text())
    return content


# --- its own files


def test_a_checkpoint_that_the_run_did_not_write_is_never_read(
    dpbench: Command, toy: ModuleType, tmp_path: Path
) -> None:
    toy.HOOKS["sample"] = interrupt
    assert dpbench(*HERE).code == 130
    toy.HOOKS.clear()
    kept = Path("here", CHECKPOINT).read_bytes()
    Path("here", CHECKPOINT).write_bytes(pickle.dumps(Bomb(tmp_path / "exploded"), protocol=2))
    assert f"{CHECKPOINT} is not what the run wrote" in one_error(dpbench(*HERE))
    assert not (tmp_path / "exploded").exists()
    Path("here", CHECKPOINT).unlink()
    assert f"{CHECKPOINT} is not what the run wrote" in one_error(dpbench(*HERE))
    flipped = kept[:200] + bytes([kept[200] ^ 1]) + kept[201:]
    Path("here", CHECKPOINT).write_bytes(flipped)
    assert f"{CHECKPOINT} is not what the run wrote" in one_error(dpbench(*HERE))
    Path("here", CHECKPOINT).write_bytes(kept)
    assert dpbench(*HERE).code == 0


def test_no_code_of_a_checkpoint_is_executed_though_its_record_fits(
    dpbench: Command, toy: ModuleType, tmp_path: Path
) -> None:
    toy.HOOKS["sample"] = interrupt
    assert dpbench(*HERE).code == 130
    toy.HOOKS.clear()
    for content in (
        pickle.dumps(Bomb(tmp_path / "exploded"), protocol=2),
        to_bytes(Bomb(tmp_path / "exploded")),
        to_bytes({"mean": Bomb(tmp_path / "exploded")}),
        to_bytes(toy.ToySampler(torch.zeros(1, 8, 8))),  # as older versions stored it
    ):
        Path("here", CHECKPOINT).write_bytes(content)
        forged = read_record(Path("here", "record.json"))
        forged.artifacts[CHECKPOINT] = hashlib.sha256(content).hexdigest()
        Path("here", "record.json").write_text(forged.dumps())
        error = one_error(dpbench(*HERE))
        assert "was made by an older version of dpbench" in error and "--overwrite" in error
    assert not (tmp_path / "exploded").exists()


def test_samples_that_the_run_did_not_draw_are_never_measured(
    dpbench: Command, toy: ModuleType
) -> None:
    assert dpbench(*HERE, "--evaluators", "audit").code == 0
    before = record()
    Path("here", SAMPLES).write_bytes(b"others")
    assert f"{SAMPLES} is not what the run wrote" in one_error(dpbench(*HERE))
    assert record()["status"] == "complete"
    assert record()["measurements"] == before["measurements"]


def test_other_files_beside_the_record_stay(dpbench: Command, toy: ModuleType) -> None:
    interrupted_at_step(dpbench, toy, HERE, 1)
    mine = Path("here", ".notes.partial")
    left = Path("here", ".samples.npz.123.partial"), Path("here", ".evaluation-toy.npz.1.partial")
    for file in (mine, *left):
        file.touch()
    assert dpbench(*HERE).code == 0
    assert mine.exists() and not any(file.exists() for file in left)


# --- what the record says meanwhile


def test_a_complete_run_stays_complete_while_it_is_asked_for_more(
    dpbench: Command, toy: ModuleType
) -> None:
    assert dpbench(*HERE, "--evaluators", "audit").code == 0
    before = record()
    toy.HOOKS["evaluate"] = interrupt
    assert dpbench(*HERE).code == 130
    assert record()["status"] == "complete"
    assert record()["measurements"] == before["measurements"]

    def fail(count: int) -> None:
        raise ValueError("tired")

    toy.HOOKS["evaluate"] = fail
    assert dpbench(*HERE, "--debug").code == 1
    assert (record()["status"], record()["error"]) == ("complete", None)
    toy.HOOKS.clear()
    assert dpbench(*HERE).code == 0
    assert record()["done"] == ["fit", "sample", "audit", "toy"]


def test_every_sitting_names_its_machine_and_versions(
    dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at_revision(name: str) -> None:
        monkeypatch.setattr(steps, "environment", lambda: {"git_revision": name})

    at_revision("first")
    interrupted_at_step(dpbench, toy, HERE, 3)
    at_revision("second")
    toy.HOOKS["evaluate"] = interrupt
    assert dpbench(*HERE).code == 130
    toy.HOOKS.clear()
    at_revision("third")
    assert dpbench(*HERE).code == 0
    assert record()["environment"] == {"git_revision": "first"}
    sittings = record()["resolved"]["sittings"]
    assert [each["environment"]["git_revision"] for each in sittings] == [
        *("first", "second", "third")
    ]
    assert [each["after"] for each in sittings] == [[], [], ["fit", "sample"]]
    assert {(each["device"], each["processes"]) for each in sittings} == {("cpu", 1)}


def test_a_sampler_that_can_predict_is_a_sampler(
    dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy.ToySampler, "predict", lambda self, images: None, raising=False)
    assert dpbench(*HERE).code == 0
    assert SAMPLES in record()["artifacts"]
    assert record()["measurements"][0]["value"] is not None
