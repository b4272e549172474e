from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Literal

import pytest

from dpbench.claims import arms, published
from dpbench.claims.arms import Arm
from dpbench.claims.published import CLAIMS
from dpbench.claims.rules import Measured, Paired, Reading
from dpbench.claims.values import Metric
from dpbench.cli.claims import _missing
from dpbench.records.evaluator_status import EvaluatorStatus
from dpbench.records.run_record import RunRecord
from dpbench.runs.sweep import execute
from tests.support.claims import (
    BETTER,
    CAS,
    NEW,
    NOISE,
    OFF,
    OLD,
    cas,
    claim,
    fd,
    run,
)
from tests.support.command import Command, Ended
from tests.support.reports import keep


def table() -> dict[str, dict[str, str]]:
    with Path("leaderboards/claims.csv").open(newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def edm_and_v(edm: float, v: float) -> list[RunRecord]:
    """The runs of two of the claims, at epsilon 10."""
    (rule,) = (each.rule for each in CLAIMS if each.id == "edm-at-large-epsilon")
    return [
        run(arm, seed, fd(mean + noise[seed], "fd_cnn"))
        for arm, mean, noise in zip(rule.arms, (edm, v), (NOISE, OFF), strict=True)
        for seed in range(5)
    ]


def test_claims_are_printed_and_written(dpbench: Command) -> None:
    keep(*edm_and_v(edm=2.0, v=3.0))
    ended = dpbench("claims")
    assert ended.code == 0
    found = table()
    assert list(found) == [each.id for each in CLAIMS]
    row = found["edm-at-large-epsilon"]
    assert (row["verdict"], row["seeds"], row["missing"]) == ("supported", "5", "0")
    assert float(row["estimate"]) == pytest.approx(1.0)
    assert len(row["records"].split()) == 10
    assert found["v-at-small-epsilon"]["verdict"] == "untested"
    assert found["v-at-small-epsilon"]["reason"] == "10 runs are missing"
    page = Path("leaderboards/claims.html").read_text()
    assert all(each.id in page for each in CLAIMS)
    assert "collected 10 records" in ended.err


def test_a_twin_with_the_other_sign_is_contradicted(dpbench: Command) -> None:
    keep(*edm_and_v(edm=3.0, v=2.0))
    assert dpbench("claims", "edm-at-large-epsilon").code == 0
    assert table()["edm-at-large-epsilon"]["verdict"] == "contradicted"


def test_json_has_the_claims_that_were_asked_for(dpbench: Command) -> None:
    ended = dpbench("claims", "realism", "ensembles", "--json")  # in any order
    rows = json.loads(ended.out, parse_constant=pytest.fail)
    assert [(row["id"], row["verdict"]) for row in rows] == [
        ("ensembles", "untested"),
        ("realism", "untested"),
    ]
    assert not Path("leaderboards").exists(), "nothing is written of nothing"


def test_files_of_claims_are_stable_and_checked_by_report(dpbench: Command) -> None:
    keep(*edm_and_v(edm=2.0, v=3.0))
    assert dpbench("report").code == 0
    files = [Path("leaderboards", name) for name in ("claims.csv", "claims.html")]
    before = [file.read_bytes() for file in files]
    assert dpbench("claims").code == 0 and dpbench("report").code == 0
    assert [file.read_bytes() for file in files] == before
    assert dpbench("report", "--check").code == 0
    for file, content in zip(files, before, strict=True):
        file.write_bytes(content.replace(b"supported", b"proven"))
        ended = dpbench("report", "--check")
        assert ended.code == 1 and f"{file}: not what the records give" in ended.err
        file.write_bytes(content)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nonsense",), "there is no claim 'nonsense': choose from noise-multiplicity,"),
        (("--dry-run",), "--dry-run prints the plan of --run: give both"),
    ],
)
def test_mistakes_are_one_line(dpbench: Command, arguments: tuple[str, ...], said: str) -> None:
    ended = dpbench("claims", *arguments)
    assert ended.code == 2 and len(ended.err.splitlines()) == 1
    assert said in ended.err


@pytest.fixture
def tried(dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What is run, in this process, for the one claim: that more steps change the toy's mean."""
    monkeypatch.setattr(arms, "DECIDE_NOTHING", {})
    one = Arm("toy", 0.001, (), "smoke", "digits", seeds=(0,))
    rule = Paired(replace(one, settings=(("steps", 2),)), one, Metric("toy_mean", "toy"))
    monkeypatch.setattr(published, "CLAIMS", (claim(rule, "toy-claim"),))
    from dpbench.report import claims as report

    monkeypatch.setattr(report, "CLAIMS", published.CLAIMS)
    asked: list[list[str]] = []

    def in_this_process(arguments: list[str], interrupted: Callable[[], bool]) -> int:
        asked.append(arguments)
        ended: Ended = dpbench(*arguments)
        return ended.code

    monkeypatch.setattr(execute, "run_in_process", in_this_process)
    return asked


def test_a_dry_run_prints_the_plan_alone(dpbench: Command, tried: list[list[str]]) -> None:
    ended = dpbench("claims", "--run", "--dry-run")
    assert ended.code == 0 and not ended.out and not tried
    assert "2 to run, 0 to resume, 0 complete; about" in ended.err
    assert "toy+steps=2" in ended.err
    assert not list(Path.cwd().iterdir())


@pytest.mark.usefixtures("toy")
def test_runs_that_have_a_record_are_not_made_again(
    dpbench: Command, tried: list[list[str]]
) -> None:
    """A clone has the records and no runs; what has lost its record, and that alone, is run."""
    assert dpbench("claims", "--run").code == 0 and len(tried) == 2
    shutil.rmtree("runs")
    ended = dpbench("claims", "--run")
    assert ended.code == 0 and len(tried) == 2
    assert "2 of 2 runs have a record" in ended.err
    one = next(Path("leaderboards/records").rglob("*.json"))
    one.unlink()
    assert dpbench("claims", "--run").code == 0 and len(tried) == 3
    assert one.exists()


def test_a_run_counts_as_made_if_its_record_has_what_the_claim_reads() -> None:
    one = claim(Measured(Reading(NEW, CAS), 0.0))
    records = [run(NEW, 0, cas(1.0)), run(NEW, 1, fd(1.0)), run(OLD, 2, cas(1.0))]
    assert [request.seed for request in _missing([one], records)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("outcome", "again"),
    [(None, True), ("failed", True), ("unavailable", True), ("measured", False)],
)
def test_a_reason_in_place_of_a_value_counts_if_it_will_not_change(
    outcome: Literal["measured", "unavailable", "failed"] | None, again: bool
) -> None:
    one = claim(Measured(Reading(NEW, CAS), 0.0))
    record = run(NEW, 0, replace(cas(1.0), value=None, reason="no weights"))
    if outcome is not None:  # records of schema version 1 do not say
        record.evaluators["cas"] = EvaluatorStatus(outcome, "cas 1", "no weights")
    assert [request.seed for request in _missing([one], [record])] == [0, 1, 2, 3, 4][not again :]


def test_runs_that_share_public_weights_are_made_again_with_their_references() -> None:
    one = claim(BETTER)
    records = [run(arm, seed, fd(1.0), schema_version=1) for arm in (NEW, OLD) for seed in range(5)]
    assert _missing([one], records) == []
    records[3].resolved["pretrained"] = {"recipe": "ab", "sha256": "cd"}
    assert len(_missing([one], records)) == 10, "later measurements are compared with none of these"
    later = [run(NEW, seed, fd(1.0)) for seed in range(5)]
    assert [each.method for each in _missing([one], [*records, *later])] == ["old"] * 5
    later += [run(OLD, seed, fd(1.0)) for seed in range(5)]
    assert _missing([one], [*records, *later]) == []


def test_what_is_missing_is_run_and_then_judged(
    dpbench: Command, toy: ModuleType, tried: list[list[str]]
) -> None:
    def fails(count: int) -> None:
        if count == 1:
            raise ValueError("tired")

    toy.HOOKS["step"] = fails
    ended = dpbench("claims", "--run")
    assert ended.code == 1 and len(tried) == 2
    assert ended.err.endswith("Error: 1 of 2 runs failed: the same command tries them again\n")
    assert table()["toy-claim"]["missing"] == "1"
    toy.HOOKS.clear()
    assert dpbench("claims", "--run", "toy-claim").code == 0
    assert len(tried) == 3, "what is complete is skipped"
    row = table()["toy-claim"]
    assert (row["missing"], row["seeds"], row["verdict"]) == ("0", "1", "unresolved")
