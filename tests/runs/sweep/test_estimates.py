from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from dpbench.records.run_record import read_record
from dpbench.runs.request import PlannedRun
from dpbench.runs.sweep import execute
from dpbench.runs.sweep.estimates import TimeEstimate, TimeEstimates
from tests.support.command import Command
from tests.support.sweeps import COMMON, GRID, planned


def test_time_is_that_of_complete_runs_like_it_less_what_is_done(
    toy: ModuleType, dpbench: Command, tmp_path: Path
) -> None:
    first, second = planned(replace(GRID, seeds=(0, 1)), tmp_path)
    longer = planned(replace(GRID, common=replace(COMMON, settings=("steps=8",))), tmp_path)[0]
    estimates = TimeEstimates(tmp_path)
    assert estimates.of(first) == TimeEstimate(0.0, 0), "the toy has nothing to probe"
    assert dpbench(*execute.run_command(first.planned.request, tmp_path, None)).code == 0
    record = read_record(first.folder / "record.json")
    estimates.learn(record)
    for known in (estimates, TimeEstimates(tmp_path)):
        assert known.of(second) == TimeEstimate(sum(record.timings.values()), 1)
        assert known.of(longer).runs == 0
        half = replace(record, status="started", timings={"fit": record.timings["fit"]})
        left = known.of(replace(second, earlier=half))
        assert left.seconds == pytest.approx(record.timings["sample"] + record.timings["toy"])
        assert known.of(replace(first, earlier=record)) == TimeEstimate(0.0, 0)
    half_known = TimeEstimates(tmp_path / "elsewhere")
    half_known.learn(half)
    assert half_known.of(second).runs == 0, "a run that is not complete tells no time"


def test_training_is_probed_once_for_all_seeds(
    toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = planned(replace(GRID, seeds=(0, 1)), tmp_path)
    probed = iter([7.0])
    monkeypatch.setattr(PlannedRun, "estimated_seconds", property(lambda self: next(probed)))
    estimates = TimeEstimates(tmp_path)
    assert [estimates.of(cell) for cell in cells] == [TimeEstimate(7.0, 0)] * 2
