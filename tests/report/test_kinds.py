"""What is ranked, where intervals end, what is missing: by the kinds and ranges of metrics."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from dpbench.core.metrics import Measurement, MetricKind
from dpbench.core.registry import entries, load
from dpbench.records.frame import measurement_frame
from dpbench.records.run_record import RunRecord
from dpbench.report import derive, leaderboard
from dpbench.report.metrics import HEADLINES, kind_of, range_of
from tests.support.command import Command
from tests.support.reports import SPEC, cas_rows, finished, keep, table


def test_kinds_by_name_are_those_that_evaluators_declare() -> None:
    declared = {
        metric.name.replace("*", "0"): metric.kind
        for name in entries("evaluator")
        for metric in load("evaluator", name).metrics
    }
    assert {name: kind_of(name) for name in declared} == declared
    assert set(declared.values()) == {"score", "diagnostic", "bound", "reference"}
    assert {declared[name] for name in HEADLINES} == {"score"}


def measured(method: str, *values: float | None, **parts: object) -> list[RunRecord]:
    records = []
    for seed, value in enumerate(values):
        reason = "" if value is not None else "out of memory"
        row = Measurement("cas", value, "%", True, 10, "test", "cnn", reason)
        record = finished(replace(SPEC, method=method, seed=seed), value, reason)
        record.measurements = [replace(row, **parts)]  # type: ignore[arg-type]
        records.append(record)
    return records


def ranks() -> list[str]:
    return [row["rank_low"] for row in table()]


@pytest.mark.parametrize("kind", ["score", "diagnostic", "bound", "reference"])
def test_only_scores_are_ranked(dpbench: Command, kind: MetricKind) -> None:
    keep(*measured("a", 1.0, 1.1, kind=kind), *measured("b", 90.0, 91.0, kind=kind))
    dpbench("report")
    assert {row["kind"] for row in table()} == {kind}
    assert ranks() == (["2", "1"] if kind == "score" else ["", ""])


def test_old_records_have_their_kind_by_name(dpbench: Command) -> None:
    floors = (measured(name, 1.0, 1.1, metric="fd_cnn_floor", unit="") for name in "ab")
    keep(*(record for records in floors for record in records))
    dpbench("report")
    assert {row["kind"] for row in table()} == {"reference"} and ranks() == ["", ""]


def outside() -> list[str]:
    """The metrics whose intervals leave the range of the metric."""
    found = []
    for row in table():
        low, high = range_of(row["metric"], row["unit"], ())
        if not low <= float(row["ci_low"]) <= float(row["ci_high"]) <= high:
            found.append(row["metric"])
    return found


WIDE = (
    *measured("percentage", 0.5, 99.5),
    *measured("share", 0.01, 0.99, metric="recall_cnn", unit=""),
    *measured("distance", 0.1, 5.0, metric="fd_cnn", unit="", higher_is_better=False),
    *measured("correlation", -0.9, 0.9, metric="model_selection_a_spearman", unit=""),
)


def test_intervals_stay_in_the_range_of_the_metric(dpbench: Command) -> None:
    keep(*WIDE)
    dpbench("report")
    assert outside() == []
    assert (cas_rows()[0]["ci_low"], cas_rows()[0]["ci_high"]) == ("0.0", "100.0")


def test_the_check_of_ranges_notices_intervals_that_are_not_cut(
    dpbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaderboard, "range_of", lambda *_: (-math.inf, math.inf))
    keep(*WIDE)
    dpbench("report")
    assert len(outside()) == len(WIDE) // 2


def test_equal_values_have_no_interval_and_no_rank(dpbench: Command) -> None:
    keep(*measured("a", 50.0, 50.0), *measured("b", 1.0, 1.5))
    dpbench("report")
    found = {row["method"]: row for row in table()}
    assert (found["a"]["ci_low"], found["a"]["rank_low"]) == ("", "")
    assert (found["b"]["ci_low"] != "", found["b"]["rank_low"]) == (True, "1")


def test_a_range_that_a_value_leaves_is_not_that_of_the_mean() -> None:
    assert range_of("kid", "", [0.1, -0.01]) == (-math.inf, math.inf)
    assert range_of("of_others", "", [3.0]) == (-math.inf, math.inf)


def test_a_row_says_how_many_seeds_are_missing_and_why(dpbench: Command) -> None:
    records = measured("toy", 2.0, None, None, 4.0)
    # what failed does not say which extractor would have seen how many images
    for failed in records[1:3]:
        failed.measurements = [replace(failed.measurements[0], n=0, extractor="", split="")]
    records[3].measurements = [Measurement("other", 1.0, "%", True, 10)]
    keep(*records)
    dpbench("report")
    (row,) = cas_rows()
    assert (row["mean"], row["seeds"], row["missing"]) == ("2.0", "1", "3")
    assert row["reason"] == "seeds 1, 2: out of memory; seed 3: not measured"


def test_a_row_without_gaps_gives_no_reason(dpbench: Command) -> None:
    keep(*measured("toy", 2.0, 3.0))
    dpbench("report")
    (row,) = table()
    assert (row["seeds"], row["missing"], row["reason"]) == ("2", "0", "")


@pytest.mark.parametrize("of", ["evaluator", "method"])
def test_two_versions_are_two_rows(dpbench: Command, of: str) -> None:
    keep(*versions(of))
    dpbench("report")
    assert {row[f"{of}_version"]: row["mean"] for row in table()} == {"1": "1.0", "2": "3.0"}
    assert {row["missing"] for row in table()} == ({"1"} if of == "evaluator" else {"0"})


def versions(of: str) -> list[RunRecord]:
    first, second = measured("toy", 1.0, 3.0)
    for record, version in ((first, "1"), (second, "2")):
        if of == "method":
            record.spec = replace(record.spec, method_version=version)
        else:
            record.measurements = [replace(record.measurements[0], version=version)]
    return [first, second]


def test_a_report_that_forgets_the_version_would_pool_them(
    dpbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgetful = lambda *given: measurement_frame(*given).assign(version="")  # noqa: E731
    monkeypatch.setattr(derive, "measurement_frame", forgetful)
    keep(*versions("evaluator"))
    dpbench("report")
    assert [row["mean"] for row in table()] == ["2.0"]


def test_a_row_says_by_how_many_revisions_it_was_made(dpbench: Command) -> None:
    records = measured("toy", 1.0, 2.0, 3.0)
    for record, revision in zip(records, ("a", "b", "b"), strict=True):
        record.environment = {"git_revision": revision}
    keep(*records)
    dpbench("report")
    assert [row["revisions"] for row in table()] == ["2"]
