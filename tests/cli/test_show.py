"""How a run ends, and ``dpbench show``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from dpbench.core.metrics import Measurement
from dpbench.records.sample_scores import Scores
from tests.support.command import TOY, Command, one_error
from tests.support.reports import FOREIGN, SPEC, finished, keep, score

LONG = "model_selection_reseeded_cnn16-32-64_lr0.0003_wd0.0005"


def folder_of(dpbench: Command) -> Path:
    assert dpbench(*TOY).code == 0
    (record,) = Path("runs").rglob("record.json")
    return record.parent


def test_a_run_ends_with_its_findings_and_where_everything_is(
    dpbench: Command, toy: ModuleType
) -> None:
    ended = dpbench(*TOY)
    (record,) = Path("runs").rglob("record.json")
    lines = [line.split(maxsplit=1) for line in ended.out.splitlines() if line.strip()]
    said = {first: rest for first, *rest in lines}
    assert said["toy_mean"][0].split()[-3:] == ["less", "is", "better"]
    assert said["guarantee"][0].startswith("epsilon 0.000")
    assert said["release"] == ["valid"]
    assert "of training" in said["took"][0] and "of evaluation" in said["took"][0]
    assert said["left"] == ["out   toy_missing"]
    assert said["record"] == [str(record)]
    assert said["grid"] == [str(record.parent / "grid.png")]
    assert said["more"] == [f"dpbench show {record.parent} --all"]
    assert "it is [missing]" not in ended.out


def test_everything_is_shown_by_evaluator_on_demand(dpbench: Command, toy: ModuleType) -> None:
    ended = dpbench(*TOY, "--all")
    assert "others" in ended.out and "no toy_missing: it is [missing]" in ended.out
    assert dpbench("show", folder_of(dpbench), "--all").out == ended.out


def test_a_run_is_shown_by_its_folder_its_record_or_the_beginning_of_its_id(
    dpbench: Command, toy: ModuleType
) -> None:
    folder = folder_of(dpbench)
    text = (folder / "record.json").read_text()
    shown = dpbench("show", folder).out
    assert "toy on digits, epsilon 0.001, seed 0" in shown
    assert "its scores mean nothing" in shown
    whole = text.split('"id": "')[1].split('"')[0]
    for name in (folder / "record.json", whole[:4], whole[:8], whole):
        assert dpbench("show", name).out == shown
    assert dpbench("show", folder, "--json").out == text


def test_scores_of_samples_are_shown_too(dpbench: Command) -> None:
    text = score(
        Scores(FOREIGN, measurements=[Measurement("cas_cnn", 99.0, "%", True, 10, "test")])
    )
    ended = dpbench("show", "evaluations/mine.json")
    assert "CAS, CNN" in ended.out and "not claimed" in ended.out
    assert dpbench("show", "evaluations/mine.json", "--json").out == text


def test_what_cannot_be_shown_is_said_in_one_line(dpbench: Command) -> None:
    keep(*(finished(replace(SPEC, seed=seed), 1.0) for seed in range(40)))
    ids = sorted(path.parent.name[-8:] for path in Path("runs").rglob("record.json"))
    assert "there is no run nowhere" in one_error(dpbench("show", "nowhere"), 2)
    absent = next(
        f"{n:04x}" for n in range(65536) if not any(i.startswith(f"{n:04x}") for i in ids)
    )
    assert f"there is no run {absent}" in one_error(dpbench("show", absent), 2)
    Path("runs/digits/toy/twin-" + ids[0]).mkdir()
    source = next(Path("runs").rglob(f"*{ids[0]}/record.json"))
    Path("runs/digits/toy/twin-" + ids[0], "record.json").write_text(source.read_text())
    assert "2 runs in runs" in one_error(dpbench("show", ids[0]), 2)
    Path("list.json").write_text("[]")
    assert "list.json" in one_error(dpbench("show", "list.json"), 2)


@pytest.mark.parametrize("privacy", [{}, {"release": 3}, {"release": "valid", "epsilon": "much"}])
def test_a_certificate_that_cannot_be_read_is_said_to_be_no_guarantee(
    dpbench: Command, privacy: dict[str, object]
) -> None:
    keep(finished(SPEC, 1.0, privacy=privacy))
    ended = dpbench("show", SPEC.id)
    assert ended.code == 0
    assert "guarantee  none that can be read" in ended.out


@pytest.mark.parametrize("columns", [80, 120, 200, None])
def test_no_table_breaks_the_name_of_a_metric(
    dpbench: Command, monkeypatch: pytest.MonkeyPatch, columns: int | None
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", str(columns))
    row = Measurement(LONG, 73.77, "%", True, 10_000, "test", "cnn16-32-64/sgd100 on 8000")
    keep(finished(SPEC, None, "none", measurements=[row]))
    (line,) = (each for each in dpbench("show", SPEC.id, "--all").out.splitlines() if LONG in each)
    assert line.split()[:3] == [LONG, "test", "73.77"]
    assert ("10,000" in line) is (columns != 80)
    assert len(line) <= (columns or 1000)
