from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from dpbench.core.metrics import Measurement
from dpbench.evaluators.audit import EVALUATOR as AUDIT
from dpbench.records.run_record import RunRecord, RunSpec, digest
from dpbench.records.sample_scores import Scores
from tests.support.certified import certificate
from tests.support.command import Command
from tests.support.reports import (
    CAS_OF_MINE,
    FOREIGN,
    SPEC,
    cas_rows,
    finished,
    keep,
    keep_tested,
    score,
    table,
)

# what programs that read the leaderboards rely on
FIRST_COLUMNS = [
    *("dataset", "profile", "method", "epsilon", "delta", "adjacency", "metric"),
    *("mean", "ci_low", "ci_high", "seeds"),
]

AUDITED = (
    *("audited_epsilon_lower", "sigma_ratio_low", "sigma_ratio_high"),
    "audited_epsilon_ceiling",
)


def test_columns_begin_as_promised(dpbench: Command) -> None:
    keep(finished(SPEC, 50.0))
    assert dpbench("report").code == 0
    (row,) = table()
    assert list(row)[: len(FIRST_COLUMNS)] == FIRST_COLUMNS
    assert (row["accounted_epsilon"], row["private_evaluations"]) == (
        str(certificate(SPEC)["epsilon"]),
        "9",
    )
    assert row["records"] == SPEC.id[:8]


def test_every_row_says_what_the_audits_of_its_runs_found(dpbench: Command) -> None:
    def audited(spec: RunSpec, *values: float | None) -> RunRecord:
        names = [metric.name for metric in AUDIT.metrics if metric.name != "audit_alarms"]
        record = finished(spec, 50.0)
        # the last is no evidence
        for name, value in zip(names, (*values, 2.5, 9.0), strict=True):
            reason = "" if value is not None else "no claim"
            record.measurements.append(Measurement(name, value, "", True, 0, reason=reason))
        return record

    other = replace(SPEC, method="other")
    keep(
        audited(SPEC, 0.97, 0.99, 0.2),
        audited(replace(SPEC, seed=1), 0.98, 1.01, 0.3),
        audited(other, None, None, None),
    )
    ended = dpbench("report", "--metric", "cas")
    assert ended.code == 0 and "does not prove it" in " ".join(ended.out.split())
    found = {
        row["method"]: [row[name] for name in AUDITED] for row in table() if row["metric"] == "cas"
    }
    assert found == {"toy": ["0.3", "0.97", "1.01", "2.5"], "other": ["", "", "", "2.5"]}


def test_without_audits_nothing_is_said_of_them(dpbench: Command) -> None:
    keep(finished(SPEC, 50.0))
    assert "canaries" not in dpbench("report").out


def test_mean_and_interval_are_students_over_seeds(dpbench: Command) -> None:
    values = (50.1, 50.2, 50.6)
    keep(*(finished(replace(SPEC, seed=seed), value) for seed, value in enumerate(values)))
    assert dpbench("report").code == 0
    (row,) = table()
    # t quantile of 97.5% at two degrees of freedom in closed form: a sqrt(2 / (1 - a^2)), a = 0.95
    quantile = 0.95 * math.sqrt(2 / (1 - 0.95**2))
    half = quantile * math.sqrt((0.2**2 + 0.1**2 + 0.3**2) / 2 / 3)
    assert row["seeds"] == "3"
    assert float(row["mean"]) == pytest.approx(50.3, rel=1e-12)
    # six digits: an interval that is right has all of them
    assert [row["ci_low"], row["ci_high"]] == [f"{50.3 - half:.6g}", f"{50.3 + half:.6g}"]


def test_one_seed_has_no_interval_and_says_so(dpbench: Command) -> None:
    keep(finished(SPEC, 50.0))
    ended = dpbench("report", "--metric", "cas")
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
    ended = dpbench("report", "--metric", "cas")
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
        ("method_version", "toy 1.1"),
        ("adjacency", "replace_one"),
        ("delta", 1e-6),
        ("compute", {"private_evaluations": 20}),
        ("reproducible", True),
    ],
)
def test_only_seeds_are_averaged_over(dpbench: Command, name: str, other: object) -> None:
    keep(finished(SPEC, 1.0), finished(replace(SPEC, seed=1, **{name: other}), 2.0))  # type: ignore[arg-type]
    assert dpbench("report", "--all").code == 0
    assert [row["seeds"] for row in table()] == ["1", "1"]


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


def test_an_epsilon_written_into_scores_is_refused_even_with_a_right_digest(
    dpbench: Command,
) -> None:
    content = json.loads(score(Scores(FOREIGN, measurements=[CAS_OF_MINE])))
    content["privacy"] = {"release": "not claimed", "epsilon": 1.0}
    content["digest"] = digest(content)  # a forger's
    Path("evaluations/mine.json").write_text(json.dumps(content))
    ended = dpbench("report")
    assert ended.code == 2 and "mine.json holds no scores of samples: privacy.epsilon" in ended.err


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
    ended = dpbench("report", "--metric", "cas")
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
