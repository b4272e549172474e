"""``dpbench release``: what may be given away of a run, and nothing else."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from dpbench.core.metrics import Measurement
from dpbench.records.run_record import read_record
from dpbench.report import release
from tests.support.command import TOY, Command, one_error
from tests.support.reports import SPEC, finished, keep


def run(dpbench: Command, *options: object) -> Path:
    assert dpbench(*TOY, "--out", "run", *options).code == 0
    return Path("run")


def test_a_release_has_the_images_their_labels_and_a_record_that_verifies(
    dpbench: Command, toy: ModuleType
) -> None:
    folder = run(dpbench)
    ended = dpbench("release", folder, "--out", "given/away")
    assert ended.code == 0 and "200 images" in ended.out
    out = Path("given/away")
    assert {path.name for path in out.iterdir()} == {
        *("images", "labels.csv", "record.json", "releases.json", "DATASHEET.md")
    }
    samples = np.load(folder / "samples.npz")
    with (out / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["label"]) for row in rows] == samples["labels"].tolist()
    for row, image in zip(rows, samples["images"], strict=True):
        assert np.array_equal(np.asarray(Image.open(out / row["file"])), image[0])
        assert row["file"].startswith(f"images/{row['label']}-{row['class']}/")
    assert dpbench("verify", out).out.startswith("verified")
    assert [path.name for path in Path("given").iterdir()] == ["away"], "nothing is left beside it"


def test_nothing_that_was_measured_on_private_images_is_released_unless_asked_for(
    dpbench: Command, toy: ModuleType
) -> None:
    folder = run(dpbench)
    assert dpbench("release", folder, "--out", "without").code == 0
    record, kept = read_record(Path("without/record.json")), read_record(folder / "record.json")
    assert record.measurements == [] and record.evaluators == {}
    assert record.timings.keys() == {"fit", "sample"} and record.environment == {}
    assert record.privacy == kept.privacy and record.spec == kept.spec
    sheet = Path("without/DATASHEET.md").read_text()
    assert "toy_mean" not in sheet and "Scores" not in sheet

    assert dpbench("release", folder, "--out", "with", "--with-scores", "--npz").code == 0
    assert read_record(Path("with/record.json")).measurements == kept.measurements
    sheet = Path("with/DATASHEET.md").read_text()
    assert "toy_mean" in sheet and "They are not differentially private" in sheet
    assert Path("with/samples.npz").read_bytes() == (folder / "samples.npz").read_bytes()
    assert not Path("with/images").exists()


def test_the_datasheet_says_what_is_guaranteed_and_what_is_not(
    dpbench: Command, toy: ModuleType
) -> None:
    folder = run(dpbench)
    dpbench("release", folder, "--out", "out")
    sheet, record = Path("out/DATASHEET.md").read_text(), read_record(folder / "record.json")
    assert f"epsilon = {record.privacy['epsilon']:.6g} and delta = 1e-05" in sheet
    assert all(f"- {each}\n" in sheet for each in record.privacy["not_covered"])
    assert "mean image: dp_sgd, noise multiplier" in sheet and "4 steps" in sheet
    assert "dpbench verify record.json" in sheet


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--reproducible",), "may not be released"),
        (("--method", "real", "--eps", "inf"), "may not be released (not private)"),
    ],
)
def test_what_is_void_or_not_private_is_refused(
    dpbench: Command, toy: ModuleType, options: tuple[str, ...], why: str
) -> None:
    assert why in one_error(dpbench("release", run(dpbench, *options), "--out", "out"), 2)
    assert not Path("out").exists()


def test_a_run_that_is_edited_unfinished_alarming_or_without_samples_is_refused(
    dpbench: Command, toy: ModuleType
) -> None:
    folder = run(dpbench)
    record = folder / "record.json"
    text = record.read_text()
    record.write_text(text.replace('"epsilon": 0.00', '"epsilon": 0.0001', 1))
    assert "is rejected" in one_error(dpbench("release", folder, "--out", "out"), 2)
    record.write_text(text)
    (folder / "samples.npz").unlink()
    assert "samples.npz is not there" in one_error(dpbench("release", folder, "--out", "out"), 2)

    alarm = Measurement("audit_alarms", 1.0, "", False, 0, "", "1000 canaries")
    keep(finished(SPEC, None, "none", measurements=[alarm]))
    assert "refutes the claim" in one_error(dpbench("release", SPEC.id, "--out", "out"), 2)
    begun = finished(SPEC, 1.0, status="started")
    Path("runs", SPEC.folder, "record.json").write_text(begun.dumps())
    assert "not complete" in one_error(dpbench("release", SPEC.id, "--out", "out"), 2)
    assert not Path("out").exists()


def test_what_does_not_verify_as_the_run_did_is_not_released(
    dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release that leaves out what the claim is checked by."""
    folder = run(dpbench)
    honest = release._without_what_is_private
    monkeypatch.setattr(
        release,
        "_without_what_is_private",
        lambda *arguments: replace(honest(*arguments), artifacts={}),
    )
    ended = dpbench("release", folder, "--out", "out")
    assert "does not verify: there is no hash of releases.json" in one_error(ended)
    assert not Path("out").exists()


def test_a_release_replaces_nothing(dpbench: Command, toy: ModuleType) -> None:
    folder = run(dpbench)
    Path("out").mkdir()
    Path("out/mine").touch()
    assert "out is there already" in one_error(dpbench("release", folder, "--out", "out"), 2)
    assert [path.name for path in Path("out").iterdir()] == ["mine"]
    Path("out/mine").unlink()
    assert dpbench("release", folder, "--out", "out", "--npz").code == 0
    assert json.loads(Path("out/record.json").read_text())["measurements"] == []
