from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dpbench.core.metrics import Measurement
from dpbench.records.sample_scores import Scores
from dpbench.report import collect
from tests.support.certified import ARTIFACTS
from tests.support.command import Command
from tests.support.reports import (
    CAS_OF_MINE,
    FOREIGN,
    SPEC,
    N,
    finished,
    keep,
    keep_tested,
    score,
    table,
)


def test_runs_that_are_not_complete_are_left_out_and_named(dpbench: Command) -> None:
    keep(
        finished(SPEC, 1.0),
        finished(replace(SPEC, seed=1), 2.0, status="failed"),
        finished(replace(SPEC, seed=2), 3.0, status="started"),
    )
    ended = dpbench("report")
    assert ended.code == 0
    (row,) = table()
    assert (row["seeds"], row["mean"]) == ("1", "1.0")
    for seed in (1, 2):
        assert (
            f"left out because it is incomplete: runs/{replace(SPEC, seed=seed).folder}"
            in ended.err
        )


def test_a_committed_record_of_an_incomplete_run_is_refused(dpbench: Command) -> None:
    keep(finished(SPEC, 1.0))
    dpbench("report")
    (file,) = Path("leaderboards/records").rglob("*.json")
    file.write_text(finished(SPEC, 1.0, status="failed").dumps())
    ended = dpbench("report", "--check")
    assert ended.code == 2
    assert f"{file} is of a run that is not complete" in ended.err


def test_an_edited_measurement_in_a_committed_record_is_refused(dpbench: Command) -> None:
    keep(finished(SPEC, 12.5))
    dpbench("report")
    (file,) = Path("leaderboards/records").rglob("*.json")
    file.write_text(file.read_text().replace("12.5", "99.5"))
    ended = dpbench("report", "--check")
    assert ended.code == 2
    assert f"{file} is rejected: its digest is not that of its content" in ended.err


def test_outcomes_are_committed_beside_the_record_and_are_small(dpbench: Command) -> None:
    keep_tested(SPEC, 0.8)
    dpbench("report")
    (file,) = Path("leaderboards/records").rglob("*.npz")
    assert file.with_name(file.name.replace(".correct.npz", ".json")).exists()
    assert file.stat().st_size < N / 8 + 400
    before, csv_text = file.read_bytes(), Path("leaderboards/digits.csv").read_text()
    shutil.rmtree("runs")
    assert dpbench("report").code == 0 and dpbench("report", "--check").code == 0
    assert file.read_bytes() == before
    assert Path("leaderboards/digits.csv").read_text() == csv_text


def test_outcomes_that_are_not_those_of_the_record_are_refused(dpbench: Command) -> None:
    keep_tested(SPEC, 0.8)
    dpbench("report")
    (file,) = Path("leaderboards/records").rglob("*.npz")
    with np.load(file) as bits:
        edited = {name: array.copy() for name, array in bits.items()}
    edited["cas"][:10] = 255
    np.savez(file, **edited)
    ended = dpbench("report", "--check")
    assert ended.code == 2 and f"{file} does not give what its record says of cas" in ended.err
    file.write_bytes(b"junk")
    assert f"{file} holds no outcomes" in dpbench("report", "--check").err


def test_predictions_that_are_not_the_runs_are_refused(dpbench: Command) -> None:
    keep_tested(SPEC, 0.8)
    (file,) = Path("runs").rglob("*.npz")
    np.savez(file, labels=np.zeros(N, int), cas=np.zeros(N, int))
    ended = dpbench("report")
    assert ended.code == 2 and "evaluation-some.npz is not the file that the run" in ended.err


def test_scores_of_a_runs_samples_are_left_to_its_record(dpbench: Command) -> None:
    keep(finished(SPEC, 50.0))
    text = score(Scores(replace(FOREIGN, origin=SPEC.id), measurements=[CAS_OF_MINE]))
    assert dpbench("report").code == 0
    assert [row["mean"] for row in table()] == ["50.0"]
    Path("leaderboards/scores").mkdir()
    Path("leaderboards/scores/mine.json").write_text(text)
    ended = dpbench("report")
    assert ended.code == 2 and "mine.json is of a run's samples" in ended.err


def with_a_second_run(dpbench: Command) -> tuple[Path, bytes]:
    """Commit a record and make another run of its id; return its file and content."""
    keep(finished(SPEC, 50.0))
    dpbench("report")
    (committed,) = Path("leaderboards/records").rglob("*.json")
    before = committed.read_bytes()
    shutil.rmtree("runs")
    keep(
        finished(SPEC, 99.0, artifacts={**ARTIFACTS, "samples.npz": "of another draw"}),
        finished(replace(SPEC, seed=1), 1.0),
    )
    return committed, before


def test_a_record_that_is_replaced_in_silence_is_noticed(
    dpbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed, before = with_a_second_run(dpbench)
    monkeypatch.setattr(collect, "_refuse_replacing", lambda *_: None)
    assert dpbench("report").code == 0 and committed.read_bytes() != before


def test_a_second_run_of_the_same_id_replaces_no_record(dpbench: Command) -> None:
    committed, before = with_a_second_run(dpbench)
    ended = dpbench("report")
    assert ended.code == 2 and len(ended.err.splitlines()) == 1
    assert f"`dpbench report --replace {SPEC.id[:8]}` puts it there" in ended.err
    assert [*Path("leaderboards/records").rglob("*.json")] == [committed], "nothing is copied"
    assert committed.read_bytes() == before
    assert dpbench("report", "--replace", SPEC.id[:7]).code == 2, "too short to name one record"
    assert dpbench("report", "--replace", SPEC.id[:8]).code == 0
    assert [row["mean"] for row in table()] == ["50.0"] and committed.read_bytes() != before


def test_a_better_score_of_the_same_samples_replaces_no_record(dpbench: Command) -> None:
    keep(finished(SPEC, 50.0))
    dpbench("report")
    shutil.rmtree("runs")
    keep(finished(SPEC, 99.0))
    assert dpbench("report").code == 2


def test_a_run_that_was_measured_further_is_collected_again(dpbench: Command) -> None:
    keep(finished(SPEC, 50.0))
    dpbench("report")
    shutil.rmtree("runs")
    further = finished(SPEC, 50.0)
    further.measurements.append(Measurement("fid", 3.0, "", False, 10, "test"))
    keep(further)
    assert dpbench("report").code == 0
    assert [row["metric"] for row in table()] == ["cas", "fid"]


def test_smoke_and_void_runs_are_left_out_and_counted(dpbench: Command) -> None:
    keep(
        finished(SPEC, 1.0),
        finished(replace(SPEC, seed=1, reproducible=True), 2.0),
        finished(replace(SPEC, seed=2, profile="smoke"), 3.0),
    )
    score(Scores(replace(FOREIGN, profile="smoke"), measurements=[CAS_OF_MINE]))
    ended = dpbench("report")
    assert [row["mean"] for row in table()] == ["1.0"]
    assert "left out: 3 of profile smoke or void for release; --all takes them in" in ended.err
    assert dpbench("report", "--all").code == 0
    assert {row["mean"] for row in table()} == {"1.0", "2.0", "3.0", "99.0"}
    assert {row["seeds"] for row in table()} == {"1"}, "in rows of their own"


def test_void_runs_are_not_ranked_with_others(dpbench: Command) -> None:
    for seed in range(2):
        keep(
            finished(replace(SPEC, seed=seed), 50.0 + seed),
            finished(replace(SPEC, seed=seed, reproducible=True), 90.0 + seed),
        )
    dpbench("report", "--all")
    assert {row["rank_high"] for row in table()} == {"1"}


def test_without_any_other_run_the_message_says_how_to_see_them(dpbench: Command) -> None:
    keep(finished(replace(SPEC, profile="smoke"), 1.0))
    ended = dpbench("report")
    assert ended.code == 2 and "--all takes them in" in ended.err
