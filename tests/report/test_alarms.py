from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dpbench.core.metrics import Measurement
from dpbench.records.run_record import RunRecord
from dpbench.report import derive
from tests.support.command import Command
from tests.support.reports import SPEC, finished, keep, table

LINE = (
    f"AUDIT ALARM in record {SPEC.id[:8]} (toy, epsilon 1, seed 0): "
    "2 checks refute its privacy claim"
)
PAGES = ("index.html", "claims.html")


def alarmed(alarms: float = 2.0) -> RunRecord:
    record = finished(SPEC, 50.0)
    record.measurements.append(Measurement("audit_alarms", alarms, "", False, 0))
    return record


def where_it_stands(dpbench: Command) -> set[str]:
    """Where a report says that there is an alarm."""
    ended = dpbench("report")
    assert ended.code == 0
    places = {name for name in PAGES if LINE in Path("leaderboards", name).read_text()}
    if LINE in ended.err:
        places.add("terminal")
    if all(row["audit_alarms"] == "2" for row in table()):
        places.add("table")
    return places


def test_an_alarm_stands_in_table_pages_and_terminal(dpbench: Command) -> None:
    keep(alarmed())
    assert where_it_stands(dpbench) == {*PAGES, "terminal", "table"}
    assert ">2 ALARM<" in Path("leaderboards/index.html").read_text()
    assert LINE in dpbench("report", "--check").err


def test_an_alarm_that_pages_and_terminal_do_not_show_is_missed_there(
    dpbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(derive, "find_alarms", lambda records: [])
    keep(alarmed())
    assert where_it_stands(dpbench) == {"table"}


def test_an_audit_without_alarm_raises_none(dpbench: Command) -> None:
    keep(alarmed(0.0), finished(replace(SPEC, seed=1), 50.0))
    assert where_it_stands(dpbench) == set()
    assert {row["audit_alarms"] for row in table() if row["metric"] == "cas"} == {"0"}
