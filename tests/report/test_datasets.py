"""Rows, pages, figures and comparisons are of one content each."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from dpbench.records.run_record import read_record
from dpbench.report import leaderboard
from dpbench.report.datasets import distinct_names
from dpbench.report.spent import spent_together
from tests.support.command import Command
from tests.support.reports import SPEC, cas_rows, finished, keep, keep_tested, table, with_curves

EASY = replace(SPEC, dataset="imagefolder:train", dataset_hash="aa" * 32)
HARD = replace(EASY, dataset_hash="bb" * 32)
SAME_FILE = replace(EASY, dataset="imagefolder;train", dataset_hash="cc" * 32)
FILES = [f"imagefolder-train-{digits * 4}" for digits in ("aa", "bb", "cc")]


def test_only_what_is_ambiguous_gets_a_hash() -> None:
    found = distinct_names([("a", "1" * 64), ("b", "2" * 64), ("b", "3" * 64), ("a", "1" * 64)])
    assert found == {
        ("a", "1" * 64): "a",
        ("b", "2" * 64): "b 22222222",
        ("b", "3" * 64): "b 33333333",
    }
    # one content under two names of one file is one data set
    assert set(distinct_names([("a b", "1"), ("a;b", "1")]).values()) == {"a b"}


def test_sets_of_one_name_share_no_row_page_or_figure(dpbench: Command) -> None:
    keep(*(with_curves(spec) for spec in (EASY, HARD, SAME_FILE)))
    ended = dpbench("report")
    assert ended.code == 0, ended.err
    for file in FILES:
        assert {row["seeds"] for row in table(file)} == {"1"}
        assert len({row["dataset"] for row in table(file)}) == 1
        assert Path(f"leaderboards/figures/{file}.scaling.png").is_file()
    page = Path("leaderboards/index.html").read_text(encoding="utf-8")
    for heading in ("imagefolder:train aaaaaaaa", "imagefolder:train bbbbbbbb"):
        assert page.count(f"<h2>{heading}</h2>") == 1
        assert heading in ended.out
    records = [finished(spec, 50.0) for spec in (EASY, HARD)]
    lines = [line.partition(" spent")[0] for line in spent_together(records)]
    assert [line.rpartition(" ")[2] for line in lines] == ["aaaaaaaa", "bbbbbbbb"]


def test_nor_a_comparison(dpbench: Command) -> None:
    for seed in range(2):
        keep_tested(replace(EASY, seed=seed), 0.5)
        keep_tested(replace(HARD, seed=seed, method="other"), 0.9)
    assert dpbench("report").code == 0
    assert not [*Path("leaderboards").glob("*.comparisons.csv")]


def test_a_report_by_names_alone_is_noticed(
    dpbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_name = {(spec.dataset, spec.dataset_hash): spec.dataset for spec in (EASY, HARD)}
    monkeypatch.setattr(leaderboard, "distinct_names", lambda pairs: by_name)
    keep(finished(EASY, 1.0), finished(HARD, 99.0))
    dpbench("report")
    assert len(table("imagefolder-train")) == 2


# Values that hardly vary, or not at all.


@pytest.mark.parametrize("values", [(50.0, 50.0, 50.0), (50.0, 50.0, math.nextafter(50.0, 51))])
def test_a_constant_has_no_interval_and_no_rank(
    dpbench: Command, values: tuple[float, ...]
) -> None:
    keep(*(finished(replace(SPEC, seed=seed), value) for seed, value in enumerate(values)))
    dpbench("report")
    (row,) = table()
    assert (row["seeds"], row["ci_low"], row["ci_high"], row["interval"]) == ("3", "", "", "")
    assert row["rank_low"] == row["rank_high"] == ""


def test_nor_has_one_of_which_the_images_are_known(dpbench: Command) -> None:
    keep_tested(SPEC, 0.5)
    folder = "runs" / SPEC.folder
    again = replace(read_record(folder / "record.json"), spec=replace(SPEC, seed=1))
    keep(again)
    shutil.copy(folder / "evaluation-some.npz", "runs" / again.spec.folder)
    dpbench("report")
    (row,) = cas_rows()
    assert (row["seeds"], row["ci_low"], row["rank_low"]) == ("2", "", "")


def test_a_curve_whose_seeds_all_but_agree_is_drawn(dpbench: Command) -> None:
    for seed in range(3):
        record = with_curves(replace(SPEC, seed=seed))
        record.measurements = [
            replace(each, value=each.value + 1e-9 * seed / 3) if each.value else each
            for each in record.measurements
        ]
        keep(record)
    ended = dpbench("report")
    assert ended.code == 0, ended.err
    for row in table("digits.scaling"):
        assert row["ci_low"] == "" or float(row["ci_low"]) < float(row["mean"])


def test_intervals_of_accuracies_stay_where_accuracies_are(dpbench: Command) -> None:
    for seed, value in enumerate((85.0, 100.0)):
        keep(finished(replace(SPEC, seed=seed), value))
    dpbench("report")
    (row,) = table()
    assert float(row["ci_high"]) == 100.0 and float(row["ci_low"]) < 85
