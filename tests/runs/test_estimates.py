from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from dpbench.api.profiles import SMOKE
from dpbench.records.run_record import read_record
from dpbench.runs.estimates import SAMPLING, TRAINING, TimeEstimate, TimeEstimates
from dpbench.runs.request import PlannedRun
from dpbench.runs.sweep import execute
from tests.support.command import Command
from tests.support.sweeps import COMMON, GRID, planned

USUAL = SMOKE.evaluation.seconds


def test_time_is_that_of_complete_runs_like_it_less_what_is_done(
    toy: ModuleType, dpbench: Command, tmp_path: Path
) -> None:
    first, second = planned(replace(GRID, seeds=(0, 1)), tmp_path)
    longer = planned(replace(GRID, common=replace(COMMON, settings=("steps=8",))), tmp_path)[0]
    estimates = TimeEstimates(tmp_path)
    nothing_known = {TRAINING: 0.0, SAMPLING: 0.0, "toy": USUAL}
    assert estimates.of(first.planned) == TimeEstimate(nothing_known, 0), "the toy has no probes"
    assert dpbench(*execute.run_command(first.planned.request, tmp_path, None)).code == 0
    record = read_record(first.folder / "record.json")
    estimates.learn(record)
    for known in (estimates, TimeEstimates(tmp_path)):
        assert known.of(second.planned) == TimeEstimate(record.timings, 1)
        trained_otherwise = known.of(longer.planned)
        assert trained_otherwise.runs == 0
        assert trained_otherwise.evaluation == pytest.approx(record.timings["toy"])
        half = replace(record, status="started", timings={"fit": record.timings["fit"]})
        left = known.of(second.planned, half)
        assert left.seconds == pytest.approx(record.timings["sample"] + record.timings["toy"])
        assert known.of(first.planned, record) == TimeEstimate({}, 0)
    half_known = TimeEstimates(tmp_path / "elsewhere")
    half_known.learn(half)
    assert half_known.of(second.planned).runs == 0, "a run that is not complete tells no time"


def test_a_run_without_images_tells_nothing_of_evaluators(
    toy: ModuleType, dpbench: Command, tmp_path: Path
) -> None:
    cell = planned(GRID, tmp_path)[0]
    assert dpbench(*execute.run_command(cell.planned.request, tmp_path, None)).code == 0
    record = read_record(cell.folder / "record.json")
    estimates = TimeEstimates(tmp_path / "elsewhere")
    estimates.learn(replace(record, artifacts={}))
    assert estimates.of(cell.planned).evaluation == USUAL


def test_training_and_sampling_are_probed_once_for_all_seeds(
    toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = planned(replace(GRID, seeds=(0, 1)), tmp_path)
    probed = iter([7.0])
    monkeypatch.setattr(PlannedRun, "training_seconds", property(lambda self: next(probed)))
    monkeypatch.setattr(PlannedRun, "sampling_seconds", property(lambda self: 2.0))
    estimates = TimeEstimates(tmp_path)
    expected = TimeEstimate({TRAINING: 7.0, SAMPLING: 2.0, "toy": USUAL}, 0)
    assert [estimates.of(cell.planned) for cell in cells] == [expected] * 2


def test_of_a_profile_that_was_never_measured_evaluators_are_left_out(
    toy: ModuleType, tmp_path: Path
) -> None:
    (run,) = (cell.planned for cell in planned(replace(GRID, seeds=(0,)), tmp_path))
    unknown = replace(run.profile, evaluation=replace(run.profile.evaluation, seconds=None))
    assert "toy" not in TimeEstimates(tmp_path).of(replace(run, profile=unknown)).parts
