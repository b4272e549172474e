"""What a run found, on one screen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dpbench.core.metrics import Measurement
from dpbench.core.registry import entries, load
from dpbench.core.stated import reference_methods
from dpbench.records.run_record import RunRecord, RunSpec
from dpbench.report.findings import Finding, findings, left_out, references_beside
from dpbench.report.metrics import group_of
from tests.support.reports import SPEC, finished, keep


def row(metric: str, value: float | None, split: str = "test", reason: str = "") -> Measurement:
    return Measurement(metric, value, "", True, 10, split, reason=reason, kind="score")


METHODS = ("class-mean", "real")
EVERYTHING = [
    row("audit_alarms", 0.0, ""),
    row("audit_sigma_ratio_low", 0.98, ""),
    row("audit_sigma_ratio_high", 1.01, ""),
    row("audit_epsilon_lower", 0.5, ""),
    row("audit_epsilon_ceiling", 4.25, ""),
    row("cas_logreg", 70.0),
    row("cas_cnn", 80.25),
    row("cas_cnn_low", 79.0),
    row("cas_cnn_high", 81.0),
    *(row(f"cas_cnn_class{label}", 50.0) for label in range(4)),
    row("fd_cnn", 2.0, "train"),
    row("fd_cnn", 3.0, "test"),
    row("fd_cnn_floor", 0.25),
    row("recall_cnn", 0.5),
    row("realism_share", 40.0, ""),
    row("realism_accuracy", 97.0, ""),
    row("model_selection_a_spearman", 0.9),
    row("model_selection_ceiling_spearman", 0.95),
    row("scaling_cas_n1000", 70.0),
    row("scaling_cas_n10000", 80.0),
    row("scaling_cas_real_n1000", 75.0),
    row("scaling_cas_real_n10000", 90.0),
    row("train_copies", 2.0, "train"),
    row("train_copies_real", 0.0, "train"),
    row("theirs", 1.5),
]


def test_each_question_has_its_answer_and_what_it_is_read_against() -> None:
    real = [row("cas_cnn", 88.75), row("fd_cnn", 0.125)]
    floor = [row("cas_cnn", 60.0), row("cas_logreg", 61.0)]
    assert findings(EVERYTHING, {"real": real, "class-mean": floor}) == [
        Finding("CAS, CNN", "80.2 % (79.0 to 81.0)", "chance 25, real 88.8, class-mean 60.0"),
        Finding("CAS, logistic regression", "70.0 %", "chance 25, class-mean 61.0"),
        Finding("Fréchet distance, CNN", "3", "train images 0.25, real 0.125"),
        Finding("recall", "0.50", "1 at best"),
        Finding("taken for private", "40.0 %", "judge right for 97.0 %"),
        Finding("model selection, Spearman", "0.90", "real images 0.95"),
        Finding("CAS of 1,000 to 10,000", "70.0 to 80.0 %", "real 75.0 to 90.0"),
        Finding("copies of train images", "2", "test images 0"),
        Finding("audit of the noise", "no alarm"),
        Finding("noise over claimed noise", "0.98 to 1.01", "1 as claimed"),
        Finding("epsilon, from below", "0.50", "could show 4.25 at most"),
        Finding("theirs", "1.5", "more is better"),
    ]
    assert findings([], {}) == []
    (alarm,) = findings([row("audit_alarms", 2.0, "")], {})
    assert alarm.answer.startswith("2 ALARMS")


def test_what_was_left_out_is_a_few_words() -> None:
    missing = [row("fid", None, reason="no weights"), row("fid", None, "train", "no weights")]
    missing += [row("kid", None, reason="no weights"), row("realism", None, reason="no images")]
    missing += [row(f"fd_class{n}", None, reason=f"{n} images") for n in range(3)]
    assert left_out([*EVERYTHING, *missing]) == "fid and 1 more, realism, fd_class*"
    assert left_out(EVERYTHING) == ""


def test_the_metrics_of_an_evaluator_are_shown_together_and_apart_from_others() -> None:
    groups = {
        name: {group_of(each.name.replace("*", "0")) for each in load("evaluator", name).metrics}
        for name in entries("evaluator")
    }
    assert all(len(each) == 1 for each in groups.values())
    assert len(set.union(*groups.values())) == len(groups)
    assert group_of("toy_mean") == ""


def test_a_ceiling_and_a_floor_are_what_others_are_read_against() -> None:
    assert reference_methods() == ["class-mean", "real"]


def run(spec: RunSpec, cas: float) -> RunRecord:
    return finished(spec, None, "none", measurements=[row("cas_cnn", cas)])


@pytest.mark.parametrize(
    ("other", "taken"),
    [
        ({"seed": 0}, True),
        ({"seed": 3}, True),
        ({"dataset_hash": "0001"}, False),
        ({"profile": "smoke"}, False),
        ({"samples": 11}, False),
        ({"epsilon": 3.0}, False),
        ({"delta": 1e-6}, False),
    ],
)
def test_a_reference_is_of_the_same_protocol_and_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: dict[str, object], taken: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = replace(SPEC, method="class-mean", **other)  # type: ignore[arg-type]
    keep(run(spec, 1.0))
    assert ("class-mean" in references_beside(Path("runs"), SPEC, METHODS)) is taken
    assert references_beside(Path("runs"), spec, METHODS) == {}, "nothing is its own reference"


def test_of_several_references_the_one_of_the_same_seed_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = replace(SPEC, method="class-mean")
    keep(run(replace(spec, seed=1), 1.0), run(replace(spec, seed=2), 2.0))
    for seed, expected in ((2, 2.0), (5, 1.0)):
        found = references_beside(Path("runs"), replace(SPEC, seed=seed), METHODS)
        assert found["class-mean"][0].value == expected
    assert references_beside(Path("nowhere"), SPEC, METHODS) == {}
