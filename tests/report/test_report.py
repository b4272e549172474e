from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dpbench.core.files import sha256
from dpbench.core.metrics import Measurement
from dpbench.evaluators.audit import EVALUATOR as AUDIT
from dpbench.evaluators.model_selection import EVALUATOR as MODEL_SELECTION
from dpbench.evaluators.scaling import EVALUATOR as SCALING
from dpbench.records.run_record import RunRecord, RunSpec, digest
from dpbench.records.sample_scores import UNKNOWN, Scores, ScoresSpec
from dpbench.report import collect, curves, figures, leaderboard
from tests.support.command import TOY, Command

SPEC = RunSpec(
    method="toy",
    method_version="toy 1.0",
    method_args={"steps": 3},
    dataset="digits",
    dataset_hash="00ff",
    epsilon=1.0,
    delta=1e-5,
    adjacency="add_remove",
    seed=0,
    profile="smoke",
    compute={"private_evaluations": 10},
    samples=10,
)
# what programs that read the leaderboards rely on
FIRST_COLUMNS = [
    *("dataset", "profile", "method", "epsilon", "delta", "adjacency", "metric"),
    *("mean", "ci_low", "ci_high", "seeds"),
]

AUDITED = ("audited_epsilon_lower", "sigma_ratio_low", "sigma_ratio_high")


def finished(spec: RunSpec, value: float | None, reason: str = "", **parts: object) -> RunRecord:
    record = RunRecord(spec, status="complete")
    record.resolved = {"by_hand": []}
    record.privacy = {"epsilon": spec.epsilon, "release": "valid"}
    record.cost = {"private_evaluations": 9, "public_evaluations": 0}
    record.timings = {"fit": 1.5}
    record.measurements = [Measurement("cas", value, "%", True, 10, "test", reason=reason)]
    for name, part in parts.items():
        setattr(record, name, part)
    return record


def keep(*records: RunRecord) -> None:
    for record in records:
        file = "runs" / record.spec.folder / "record.json"
        file.parent.mkdir(parents=True)
        file.write_text(record.dumps())


def table(dataset: str = "digits") -> list[dict[str, str]]:
    with Path("leaderboards", f"{dataset}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_columns_begin_as_promised(dpbench: Command) -> None:
    keep(finished(SPEC, 50.0))
    assert dpbench("report").code == 0
    (row,) = table()
    assert list(row)[: len(FIRST_COLUMNS)] == FIRST_COLUMNS
    assert (row["accounted_epsilon"], row["private_evaluations"]) == ("1.0", "9")
    assert row["records"] == SPEC.id[:8]


def test_every_row_says_what_the_audits_of_its_runs_found(dpbench: Command) -> None:
    def audited(spec: RunSpec, *values: float | None) -> RunRecord:
        names = [metric.name for metric in AUDIT.metrics if metric.name != "audit_alarms"]
        record = finished(spec, 50.0)
        for name, value in zip(names, (*values, 9.0), strict=True):  # the last is no evidence
            reason = "" if value is not None else "no claim"
            record.measurements.append(Measurement(name, value, "", True, 0, reason=reason))
        return record

    other = replace(SPEC, method="other")
    keep(
        audited(SPEC, 0.97, 0.99, 0.2),
        audited(replace(SPEC, seed=1), 0.98, 1.01, 0.3),
        audited(other, None, None, None),
    )
    ended = dpbench("report")
    assert ended.code == 0 and "does not prove it" in " ".join(ended.out.split())
    found = {
        row["method"]: [row[name] for name in AUDITED] for row in table() if row["metric"] == "cas"
    }
    assert found == {"toy": ["0.3", "0.97", "1.01"], "other": ["", "", ""]}


def test_without_audits_nothing_is_said_of_them(dpbench: Command) -> None:
    keep(finished(SPEC, 50.0))
    assert "canaries" not in dpbench("report").out


def test_mean_and_interval_are_students_over_seeds(dpbench: Command) -> None:
    values = (0.1, 0.2, 0.6)
    keep(*(finished(replace(SPEC, seed=seed), value) for seed, value in enumerate(values)))
    assert dpbench("report").code == 0
    (row,) = table()
    # t quantile of 97.5% at two degrees of freedom in closed form: a sqrt(2 / (1 - a^2)), a = 0.95
    quantile = 0.95 * math.sqrt(2 / (1 - 0.95**2))
    half = quantile * math.sqrt(((0.1 - 0.3) ** 2 + (0.2 - 0.3) ** 2 + (0.6 - 0.3) ** 2) / 2 / 3)
    assert row["seeds"] == "3"
    assert float(row["mean"]) == pytest.approx(0.3, rel=1e-12)
    # six digits: an interval that is right has all of them
    assert [row["ci_low"], row["ci_high"]] == [f"{0.3 - half:.6g}", f"{0.3 + half:.6g}"]


def test_one_seed_has_no_interval_and_says_so(dpbench: Command) -> None:
    keep(finished(SPEC, 50.0))
    ended = dpbench("report")
    (row,) = table()
    assert (row["mean"], row["ci_low"], row["ci_high"], row["seeds"]) == ("50.0", "", "", "1")
    assert "1 seed" in ended.out


@pytest.mark.parametrize("epsilon", [0.2, 0.25, 1.5])
def test_seeds_at_a_fractional_epsilon_do_not_overwrite_each_other(
    dpbench: Command, epsilon: float
) -> None:
    specs = [replace(SPEC, epsilon=epsilon, seed=seed) for seed in range(2)]
    keep(*(finished(spec, 1.0) for spec in specs))
    assert dpbench("report").code == 0
    assert [row["seeds"] for row in table()] == ["2"]


def scored(method: str, *values: float, **spec: object) -> list[RunRecord]:
    own = replace(SPEC, method=method, **spec)  # type: ignore[arg-type]
    return [finished(replace(own, seed=seed), value) for seed, value in enumerate(values)]


def ranks_of(rows: list[dict[str, str]]) -> dict[str, tuple[str, str]]:
    return {row["method"]: (row["rank_low"], row["rank_high"]) for row in rows}


def test_methods_whose_intervals_overlap_share_their_ranks(dpbench: Command) -> None:
    keep(
        *scored("best", 80, 81, 82),
        *scored("second", 60, 61, 62),
        *scored("tied", 61, 62, 63),
        *scored("worst", 10, 11, 12),
        *scored("once", 99),
    )
    ended = dpbench("report")
    assert ranks_of(table()) == {
        "best": ("1", "1"),
        "second": ("2", "3"),
        "tied": ("2", "3"),
        "worst": ("4", "4"),
        "once": ("", ""),  # one seed: the luckiest is no winner
    }
    assert "2-3" in ended.out


def test_ranks_are_of_what_can_be_compared_and_the_other_way_where_less_is_better(
    dpbench: Command,
) -> None:
    records = [
        *scored("near", 1, 1.1, 1.2),
        *scored("far", 5, 5.1, 5.2),
        *scored("elsewhere", 0.1, 0.2, 0.3, epsilon=10.0),
    ]
    for record in records:
        record.measurements = [replace(record.measurements[0], higher_is_better=False)]
    keep(*records)
    assert dpbench("report").code == 0
    assert ranks_of(table()) == {"near": ("1", "1"), "far": ("2", "2"), "elsewhere": ("1", "1")}


def test_a_missing_value_is_an_empty_cell_with_its_reason(dpbench: Command) -> None:
    keep(finished(SPEC, None, "no, [weights]"))
    ended = dpbench("report", "--json")
    (row,) = table()
    assert (row["mean"], row["seeds"], row["reason"]) == ("", "0", "no, [weights]")
    assert json.loads(ended.out)[0]["mean"] is None


def test_a_value_missing_for_one_seed_is_no_value_of_that_row(dpbench: Command) -> None:
    keep(finished(SPEC, 2.0), finished(replace(SPEC, seed=1), None, "out of memory"))
    dpbench("report")
    (row,) = table()
    assert (row["mean"], row["seeds"], row["reason"]) == ("2.0", "1", "")


def test_no_privacy_is_inf(dpbench: Command) -> None:
    keep(finished(replace(SPEC, epsilon=math.inf), 1.0))
    ended = dpbench("report", "--json")
    (row,) = table()
    assert row["epsilon"] == row["accounted_epsilon"] == "inf"
    assert json.loads(ended.out, parse_constant=pytest.fail)[0]["epsilon"] == "inf"


def test_what_was_set_by_hand_is_a_row_of_its_own(dpbench: Command) -> None:
    by_hand = {"by_hand": ["steps"]}
    keep(
        finished(SPEC, 1.0),
        finished(replace(SPEC, method_args={"steps": 4}), 2.0, resolved=by_hand),
    )
    dpbench("report")
    assert {row["method"]: row["mean"] for row in table()} == {"toy": "1.0", "toy+steps=4": "2.0"}


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("dataset_hash", "11ff"),
        ("method_version", "toy 1.1"),
        ("adjacency", "replace_one"),
        ("delta", 1e-6),
        ("compute", {"private_evaluations": 20}),
        ("reproducible", True),
    ],
)
def test_only_seeds_are_averaged_over(dpbench: Command, name: str, other: object) -> None:
    keep(finished(SPEC, 1.0), finished(replace(SPEC, seed=1, **{name: other}), 2.0))  # type: ignore[arg-type]
    assert dpbench("report").code == 0
    assert [row["seeds"] for row in table()] == ["1", "1"]


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
        assert f"left out, not complete: runs/{replace(SPEC, seed=seed).folder}" in ended.err


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
    assert f"{file} was edited: its digest is not that of its content" in ended.err


def test_a_record_from_before_there_were_digests_is_kept_as_it_is(dpbench: Command) -> None:
    record = finished(SPEC, 12.5)
    keep(record)
    file = Path("runs", record.spec.folder, "record.json")
    content = json.loads(file.read_text())
    del content["digest"]
    file.write_text(json.dumps(content, indent=2))
    assert dpbench("report").code == 0
    (kept,) = Path("leaderboards/records").rglob("*.json")
    assert kept.read_bytes() == file.read_bytes()


def test_the_check_passes_on_what_was_written_and_fails_on_what_was_edited(
    dpbench: Command,
) -> None:
    keep(finished(SPEC, 1.25), finished(replace(SPEC, dataset="mnist"), 2.0))
    dpbench("report")
    assert dpbench("report", "--check").code == 0
    file = Path("leaderboards/digits.csv")
    text = file.read_text()
    for edited in (text.replace("1.25", "99.0"), text + text.splitlines()[1] + "\n", None):
        if edited is None:
            file.unlink()
        else:
            file.write_text(edited)
        ended = dpbench("report", "--check")
        assert ended.code == 1
        assert ended.err == (
            "Error: leaderboards/digits.csv: not what the records give; run `dpbench report`\n"
        )
    Path("leaderboards/invented.csv").write_text(text)
    assert "leaderboards/invented.csv" in dpbench("report", "--check").err


def test_the_check_writes_nothing(dpbench: Command) -> None:
    keep(finished(SPEC, 1.0))
    dpbench("report")
    keep(finished(replace(SPEC, seed=1), 1.0))
    before = {file: file.read_bytes() for file in Path("leaderboards").rglob("*.*")}
    dpbench("report", "--check")
    assert {file: file.read_bytes() for file in Path("leaderboards").rglob("*.*")} == before


def test_leaderboards_can_be_made_again_from_their_records_alone(dpbench: Command) -> None:
    keep(finished(SPEC, 1 / 3))
    dpbench("report")
    text = Path("leaderboards/digits.csv").read_text()
    Path("leaderboards/digits.csv").unlink()
    assert dpbench("report", "--runs-dir", "nowhere").code == 0
    assert Path("leaderboards/digits.csv").read_text() == text
    assert str(1 / 3) in text, "full precision"


def test_a_real_run_gives_rows(dpbench: Command, toy: ModuleType) -> None:
    assert dpbench(*TOY).code == 0
    assert dpbench("report").code == 0
    assert [row["metric"] for row in table()] == ["toy_mean", "toy_missing"]


REPORT = """
import sys
sys.argv = ["dpbench", "report"]
from dpbench.cli import main
try:
    main()
except SystemExit as ended:
    assert ended.code == 0
heavy = {"torch", "torchvision", "sklearn", "opacus"} & set(sys.modules)
methods = {name for name in sys.modules if name.startswith(("dpbench.gen", "dpbench.eval"))}
print(heavy | methods | ({"dpbench.runs.execute", "dpbench.api.method"} & set(sys.modules)))
"""


FOREIGN = ScoresSpec(
    name="mine",
    origin=UNKNOWN,
    samples_hash="00ff",
    samples=10,
    dataset="digits",
    dataset_hash="00ff",
    profile="smoke",
    seed=0,
    package="dpbench-images 0.1",
)
CAS_OF_MINE = Measurement("cas", 99.0, "%", True, 10, "test")


def score(scores: Scores, file: str = "evaluations/mine.json") -> str:
    """Keep scores; returns the text."""
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(scores.dumps())
    return scores.dumps()


def test_samples_of_unknown_origin_are_rows_without_epsilon_behind_all_others(
    dpbench: Command,
) -> None:
    keep(*(finished(replace(SPEC, epsilon=epsilon), 50.0) for epsilon in (1.0, math.inf)))
    score(Scores(FOREIGN, measurements=[CAS_OF_MINE]))
    ended = dpbench("report")
    assert ended.code == 0 and "not claimed" in ended.out
    assert [row["epsilon"] for row in table()] == ["inf", "1.0", ""]
    row = table()[-1]
    assert row["method"] == "mine (unknown origin)"
    assert (row["mean"], row["seeds"], row["ci_low"]) == ("99.0", "1", "")
    assert (row["release"], row["accounted_epsilon"], row["delta"]) == ("not claimed", "", "")
    assert dpbench("report", "--check").code == 0
    assert json.loads(dpbench("report", "--json").out)[-1]["epsilon"] is None


def test_an_epsilon_written_into_scores_is_no_epsilon_of_a_row(dpbench: Command) -> None:
    content = json.loads(score(Scores(FOREIGN, measurements=[CAS_OF_MINE])))
    content["privacy"] = {"release": "valid", "epsilon": 1.0}
    Path("evaluations/mine.json").write_text(json.dumps(content))
    ended = dpbench("report")
    assert ended.code == 2 and "mine.json was edited" in ended.err
    content["digest"] = digest(content)  # a forger's
    Path("evaluations/mine.json").write_text(json.dumps(content))
    assert dpbench("report").code == 0
    (row,) = table()
    assert (row["epsilon"], row["accounted_epsilon"], row["release"]) == ("", "", "not claimed")


def test_scores_of_a_runs_samples_are_left_to_its_record(dpbench: Command) -> None:
    keep(finished(SPEC, 50.0))
    text = score(Scores(replace(FOREIGN, origin=SPEC.id), measurements=[CAS_OF_MINE]))
    assert dpbench("report").code == 0
    assert [row["mean"] for row in table()] == ["50.0"]
    Path("leaderboards/scores").mkdir()
    Path("leaderboards/scores/mine.json").write_text(text)
    ended = dpbench("report")
    assert ended.code == 2 and "mine.json is of a run's samples" in ended.err


def test_a_report_imports_no_torch_no_method_and_no_evaluator() -> None:
    keep(finished(SPEC, 1.0), finished(replace(SPEC, seed=1), 2.0))
    ended = subprocess.run(
        [sys.executable, "-c", REPORT], capture_output=True, text=True, env=dict(os.environ)
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "set()"


# Test images: what is kept of each, and what intervals and comparisons make of it.

N = 1000


def keep_tested(spec: RunSpec, share: float, kept: bool = True, noise: int = 0) -> None:
    """Keep a run whose classifier is right of about that share of the test images."""
    rng = np.random.default_rng([spec.seed, noise])
    labels = np.arange(N) % 10
    predicted = np.where(rng.random(N) < share + rng.normal(0, 0.01), labels, (labels + 1) % 10)
    value = 100 * int((predicted == labels).sum()) / N
    record = finished(spec, value)
    record.measurements = [
        replace(record.measurements[0], n_real=N),
        Measurement("other", 3.0, "", False, 10, "test"),
    ]
    file = Path("runs", spec.folder, "evaluation-some.npz")
    file.parent.mkdir(parents=True)
    if kept:
        np.savez(file, labels=labels, cas=predicted, other=predicted)
        record.artifacts = {file.name: sha256(file)}
    (file.parent / "record.json").write_text(record.dumps())


def cas_rows() -> list[dict[str, str]]:
    return [row for row in table() if row["metric"] == "cas"]


def test_the_interval_of_seeds_is_over_test_images_too(dpbench: Command) -> None:
    for seed in range(3):
        keep_tested(replace(SPEC, seed=seed), 0.8)
        keep_tested(replace(SPEC, seed=seed, method="old"), 0.8, kept=False)
    assert dpbench("report").code == 0
    known, old = sorted(cas_rows(), key=lambda row: row["method"] == "old")
    assert (known["interval"], old["interval"]) == ("seeds and test images", "seeds")
    assert float(known["ci_low"]) < float(known["mean"]) < float(known["ci_high"])
    assert known["mean"] == old["mean"] and known["ci_low"] != old["ci_low"]
    others = [row["interval"] for row in table() if row["metric"] == "other"]
    assert others == ["seeds", "seeds"], "predictions under its name are not its value"


def test_one_seed_has_an_interval_over_test_images_that_says_so_and_no_rank(
    dpbench: Command,
) -> None:
    keep_tested(SPEC, 0.8)
    for seed in range(3):
        keep_tested(replace(SPEC, method="other", seed=seed), 0.2)
    ended = dpbench("report")
    (row,) = (row for row in cas_rows() if row["method"] == "toy")
    assert (row["seeds"], row["interval"], row["rank_low"]) == ("1", "test images", "")
    assert float(row["ci_low"]) < float(row["mean"]) < float(row["ci_high"])
    said = " ".join(ended.out.split())
    assert "another seed may well be outside" in said
    assert "1 seed" in said and "(test images)" in said


def test_a_seed_without_outcomes_leaves_the_interval_to_the_seeds(dpbench: Command) -> None:
    for seed in range(3):
        keep_tested(replace(SPEC, seed=seed), 0.8, kept=seed > 0)
    dpbench("report")
    assert [row["interval"] for row in cas_rows()] == ["seeds"]


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
    assert ended.code == 2 and f"{file} is not the file that the run wrote" in ended.err


def compared() -> dict[tuple[str, str], dict[str, str]]:
    with Path("leaderboards/digits.comparisons.csv").open(newline="") as file:
        return {(row["method_a"], row["method_b"]): row for row in csv.DictReader(file)}


def test_methods_that_differ_are_told_from_those_that_do_not(dpbench: Command) -> None:
    for seed in range(3):
        for noise, method in enumerate(("good", "alike", "bad")):
            share = 0.3 if method == "bad" else 0.8
            keep_tested(replace(SPEC, method=method, seed=seed), share, noise=noise)
    ended = dpbench("report")
    assert ended.code == 0, ended.err
    found = compared()
    p_values = {pair: float(row["adjusted_p_value"]) for pair, row in found.items()}
    assert p_values.keys() == {("alike", "bad"), ("alike", "good"), ("bad", "good")}
    assert p_values["alike", "good"] > 0.05
    assert p_values["alike", "bad"] < 0.05 and p_values["bad", "good"] < 0.05
    for pair, row in found.items():
        assert float(row["p_value"]) <= p_values[pair]
        assert float(row["ci_low"]) < float(row["difference"]) < float(row["ci_high"])
        assert (row["seeds_a"], row["seeds_b"], row["metric"]) == ("3", "3", "cas")
    assert float(found["alike", "bad"]["difference"]) > 40, "the first less the second"
    assert "adjusted p" in ended.out
    assert dpbench("report", "--check").code == 0
    file = Path("leaderboards/digits.comparisons.csv")
    file.write_text(file.read_text().replace("0.", "1.", 1))
    ended = dpbench("report", "--check")
    assert ended.code == 1 and str(file) in ended.err


def test_copies_of_a_method_are_not_called_different(dpbench: Command) -> None:
    for seed in range(2):
        for method in ("one", "copy"):
            keep_tested(replace(SPEC, method=method, seed=seed), 0.8)
    dpbench("report")
    (row,) = compared().values()
    assert (row["difference"], row["adjusted_p_value"]) == ("0.0", "1.0")


def test_p_values_are_corrected_for_the_pairs_beside_them(dpbench: Command) -> None:
    for seed in range(3):
        for noise, method in enumerate(("a", "b")):
            keep_tested(replace(SPEC, method=method, seed=seed), 0.8 - noise / 20, noise=noise)
    dpbench("report")
    alone = compared()["a", "b"]
    assert alone["adjusted_p_value"] == alone["p_value"]
    for seed in range(3):
        for noise, method in enumerate(("c", "d")):
            keep_tested(replace(SPEC, method=method, seed=seed), 0.8, noise=5 + noise)
    dpbench("report")
    among = compared()["a", "b"]
    assert len(compared()) == 6 and among["p_value"] == alone["p_value"]
    assert float(among["adjusted_p_value"]) > float(alone["p_value"])


@pytest.mark.parametrize(
    "other", [{"epsilon": 10.0}, {"profile": "laptop"}, {"dataset_hash": "11ff"}, {"seeds": 1}]
)
def test_what_cannot_be_compared_is_not_and_the_report_says_why(
    dpbench: Command, other: dict[str, Any]
) -> None:
    changed = {name: value for name, value in other.items() if name != "seeds"}
    for seed in range(3):
        keep_tested(replace(SPEC, seed=seed), 0.8)
    for seed in range(other.get("seeds", 3)):
        keep_tested(replace(SPEC, method="other", seed=seed, **changed), 0.2)
    ended = dpbench("report")
    assert not Path("leaderboards/digits.comparisons.csv").exists()
    assert "No methods are compared" in ended.out


# Points of curves.

FAMILIES = ("logreg", "cnn")
CONFIGURATIONS = [f"{family}_lr{rate}_wd0" for family in FAMILIES for rate in (0.1, 0.2)]


def with_curves(spec: RunSpec, spearman: float | None = 0.5) -> RunRecord:
    reason = "" if spearman is not None else "4 configurations"
    record = finished(spec, 50.0)
    record.measurements += [
        Measurement("model_selection_a_spearman", spearman, "", True, 10, reason=reason),
        Measurement("model_selection_b_spearman", 0.25, "", True, 10),
        *(
            Measurement(f"model_selection_{kind}_{name}", base + place, "%", True, 10)
            for base, kind in enumerate(("synthetic", "transfer", "real", "reseeded"))
            for place, name in enumerate(CONFIGURATIONS)
        ),
        *(Measurement(f"scaling_cas_n{n}", n / 10, "%", True, n) for n in (100, 200)),
        *(Measurement(f"scaling_cas_real_n{n}", n / 5, "%", True, 0) for n in (100, 200)),
        Measurement("scaling_cas_n400", None, "%", True, 10, reason="10 images are there"),
    ]
    return record


def test_points_of_curves_have_their_own_tables_and_figures(dpbench: Command) -> None:
    keep(with_curves(SPEC))
    ended = dpbench("report")
    assert ended.code == 0, ended.err
    spearmans = ["model_selection_a_spearman", "model_selection_b_spearman"]
    assert [row["metric"] for row in table()] == ["cas", *spearmans]
    points = {row["metric"]: row["mean"] for row in table("digits.model_selection")}
    assert len(points) == 4 * len(CONFIGURATIONS)
    assert points["model_selection_transfer_logreg_lr0.2_wd0"] == "2.0"
    sizes = {row["metric"]: row["mean"] for row in table("digits.scaling")}
    assert sizes["scaling_cas_n200"] == "20.0" and sizes["scaling_cas_n400"] == ""
    assert "lr0.2" not in ended.out and "scaling_cas" not in ended.out
    for name in ("model_selection", "scaling"):
        file = Path(f"leaderboards/figures/digits.{name}.png")
        assert file.read_bytes()[:4] == b"\x89PNG"
        assert str(file) in ended.err


def test_points_of_curves_of_unknown_origin_are_drawn_without_an_epsilon(dpbench: Command) -> None:
    score(Scores(FOREIGN, measurements=with_curves(SPEC).measurements))
    ended = dpbench("report")
    assert ended.code == 0, ended.err
    labels = figures.lines(leaderboard.rows(Path("leaderboards"))).axes[0].get_legend().texts
    assert "epsilon not claimed" in labels[-1].get_text()


def test_the_check_compares_the_tables_of_curves_and_no_figures(dpbench: Command) -> None:
    keep(with_curves(SPEC))
    dpbench("report")
    for figure in Path("leaderboards/figures").iterdir():
        figure.unlink()
    assert dpbench("report", "--check").code == 0
    assert not list(Path("leaderboards/figures").iterdir())
    file = Path("leaderboards/digits.scaling.csv")
    file.write_text(file.read_text().replace("20.0", "21.0"))
    ended = dpbench("report", "--check")
    assert ended.code == 1 and str(file) in ended.err


LAPTOP = replace(SPEC, profile="laptop")


def cnn(method: str, value: float | None, **spec: object) -> RunRecord:
    reason = "it is < 5" if value is None else ""
    found = Measurement("cas_cnn", value, "%", True, 10, "test", reason=reason)
    return finished(replace(LAPTOP, method=method, **spec), value, reason, measurements=[found])


def overview() -> list[list[str]]:
    """The cells of the page's tables, without tags, line by line."""
    page = Path("leaderboards/index.html").read_text(encoding="utf-8")
    lines = re.findall(r"<tr>(?:<td>.*?</td>)+</tr>", page)
    return [
        [re.sub(r"<[^>]*>", " ", each).strip() for each in re.findall(r"<td>(.*?)</td>", line)]
        for line in lines
    ]


def test_the_overview_has_budgets_from_the_largest_and_in_each_the_best_first(
    dpbench: Command,
) -> None:
    keep(cnn("worse", 50.0), cnn("better", 60.0), cnn("spendthrift", 40.0, epsilon=10.0))
    keep(*(cnn("seeds", value, seed=seed) for seed, value in enumerate((70.0, 72.0))))
    foreign = replace(FOREIGN, profile="laptop")
    score(Scores(foreign, measurements=cnn("", 99.0).measurements))
    assert dpbench("report").code == 0
    names = [line[0] for line in overview()]
    assert names == ["spendthrift", "seeds", "better", "worse", "mine (unknown origin)"]
    assert overview()[1][1:3] == ["1", "71%  2 seeds 58.29 to 83.71 (seeds)"]
    assert overview()[-1][1:3] == ["not claimed", "99%  1 seed"]


def test_the_overview_says_why_a_number_is_not_there(dpbench: Command) -> None:
    keep(cnn("some", 50.0), cnn("none", None))
    assert dpbench("report").code == 0
    assert overview()[1][:3] == ["none", "1", "&ndash;"]
    assert 'title="it is &lt; 5"' in Path("leaderboards/index.html").read_text(encoding="utf-8")


def test_the_overview_shows_what_audits_found(dpbench: Command) -> None:
    found = {
        "audit_epsilon_lower": 0.4,
        "audit_sigma_ratio_low": 0.9,
        "audit_sigma_ratio_high": 1.1,
    }
    record = cnn("some", 50.0)
    record.measurements += [Measurement(*each, "", True, 0) for each in found.items()]
    keep(record)
    assert dpbench("report").code == 0
    assert overview()[0][-2:] == ["at least 0.4", "0.900 to 1.100"]


def test_the_overview_leaves_runs_of_claims_to_their_page(dpbench: Command) -> None:
    keep(cnn("some", 50.0), cnn("other", 60.0, profile="claims"))
    assert dpbench("report").code == 0
    assert [line[0] for line in overview()] == ["some"]
    page = Path("leaderboards/index.html").read_text(encoding="utf-8")
    assert re.search(r'Of \d+ published claims: \d+ untested. <a href="claims.html">', page)


def test_what_the_overview_links_to_is_there(dpbench: Command) -> None:
    keep(with_curves(LAPTOP), *(cnn(name, 50.0, dataset="my set/1") for name in "ab"))
    assert dpbench("report").code == 0
    page = Path("leaderboards/index.html").read_text(encoding="utf-8")
    targets = re.findall(r'(?:href|src)="([^"]*)"', page)
    assert len(targets) == 5
    assert [each for each in targets if not Path("leaderboards", each).exists()] == []


def test_the_same_records_give_the_same_figures(dpbench: Command) -> None:
    keep(with_curves(SPEC))
    folder = Path("leaderboards/figures")
    written = []
    for _ in range(2):
        dpbench("report")
        written.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert len(written[0]) == 2 and written[0] == written[1]


def rows_of(*records: RunRecord) -> list[leaderboard.Row]:
    keep(*records)
    collect.collect(Path("runs"), Path("leaderboards"))
    return [row for row in leaderboard.rows(Path("leaderboards")) if row.mean is not None]


def test_the_scatter_plot_pairs_configurations_and_quotes_the_leaderboard() -> None:
    rows = rows_of(with_curves(SPEC), with_curves(replace(SPEC, epsilon=10.0), None))
    figure = figures.scatter(rows)
    titles = [panel.get_title() for panel in figure.axes]
    assert [title.rpartition(": ")[2] for title in titles] == [
        *("no Spearman", "Spearman 0.25"),  # the larger epsilon comes first, as in the tables
        *("Spearman 0.50", "Spearman 0.25"),
    ]
    assert "toy, epsilon 10 (smoke)" in titles[0] and "toy, epsilon 1 (smoke)" in titles[2]
    drawn = [
        {each.get_label(): each.get_offsets().tolist() for each in panel.collections}
        for panel in figure.axes
    ]
    # against "transfer", one more, and against "real", two more
    assert drawn[0] == {"logreg": [[0, 1], [1, 2]], "cnn": [[2, 3], [3, 4]]}
    assert drawn[1] == {"logreg": [[0, 2], [1, 3]], "cnn": [[2, 4], [3, 5]]}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["cnn", "logreg"]


def test_the_scaling_curve_has_a_line_for_each_method_and_one_for_real_images() -> None:
    rows = rows_of(with_curves(SPEC), with_curves(replace(SPEC, method="other")))
    (panel,) = figures.lines(rows).axes
    assert panel.get_xscale() == "log"
    drawn = {tuple(map(tuple, line.get_xydata())): line for line in panel.lines}
    real = drawn[(100.0, 20.0), (200.0, 40.0)]
    assert real.get_linestyle() == "--"
    labels = [text.get_text() for text in panel.get_legend().get_texts()]
    assert sorted(labels) == [
        *("other, epsilon 1 (smoke)", "real images", "toy, epsilon 1 (smoke)")
    ]
    assert sum(line.get_linestyle() == "--" for line in panel.lines) == 1


def test_an_ensemble_has_a_dotted_line_of_its_methods_colour() -> None:
    record = with_curves(SPEC)
    record.measurements += [
        Measurement(f"scaling_cas_ensemble_n{n}", n / 8, "%", True, n) for n in (100, 200)
    ]
    (panel,) = figures.lines(rows_of(record)).axes
    single, five = (container.lines[0] for container in panel.containers)
    assert five.get_xydata().tolist() == [[100, 12.5], [200, 25]]
    assert (single.get_linestyle(), five.get_linestyle()) == ("-", ":")
    assert single.get_color() == five.get_color()


def test_seeds_are_drawn_as_means_with_their_interval() -> None:
    first, second = with_curves(SPEC), with_curves(replace(SPEC, seed=1))
    second.measurements = [
        replace(each, value=each.value + 2) if each.metric == "scaling_cas_n100" else each
        for each in second.measurements
    ]
    (panel,) = figures.lines(rows_of(first, second)).axes
    (drawn,) = panel.containers
    assert drawn.lines[0].get_xydata().tolist() == [[100, 11], [200, 20]]
    low, high = drawn.lines[2][0].get_segments()[0][:, 1]
    # Student's t of one degree of freedom: 12.706 * sqrt(2) / sqrt(2)
    assert (low, high) == pytest.approx((11 - 12.7062, 11 + 12.7062), abs=1e-3)
    assert panel.get_ylim()[0] == 0  # there are no accuracies below


def test_names_of_points_are_those_that_evaluators_give() -> None:
    for evaluator, curve in ((MODEL_SELECTION, curves.MODEL_SELECTION), (SCALING, curves.SCALING)):
        names = {metric.name for metric in evaluator.metrics}
        points = {name for name in names if curves.curve_of(name) is curve}
        assert {name.removesuffix("*") for name in points} == set(curve.points)
        # what stands for itself stays in the leaderboard
        assert all(curves.curve_of(name) is None for name in names - points)
    assert {spearman for *_, spearman in figures.SETTINGS} < {
        m.name for m in MODEL_SELECTION.metrics
    }


HEAVY = """
import sys
sys.argv = {}
from dpbench.cli import main
try:
    main()
except SystemExit as ended:
    assert ended.code == 0
print({{"torch", "matplotlib"}} & set(sys.modules))
"""


@pytest.mark.parametrize("arguments", [["--help"], ["list"]])
def test_only_figures_need_matplotlib(arguments: list[str]) -> None:
    code = HEAVY.format(["dpbench", *arguments])
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ)
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "set()"
