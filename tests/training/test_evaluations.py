"""Gradient evaluations are counted before they are made and held against the plan."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from dpbench.core.errors import RunFailed
from dpbench.core.progress import Silent
from dpbench.training.evaluations import GradientEvaluations
from dpbench.training.loop import Stage


def loop(folder: Path, evaluations: GradientEvaluations) -> Stage:
    return Stage("training", folder / "a.stage", Silent(), evaluations=evaluations)


def test_what_exceeds_the_plan_is_refused_before_it_is_made(tmp_path: Path) -> None:
    evaluations = GradientEvaluations(private=10, public=20)
    stage = loop(tmp_path, evaluations)
    assert list(stage.steps(2, {}, per_step=10)) == [0, 1]
    made = []
    with pytest.raises(RunFailed, match="public gradient evaluations to 25, but .* plans 20"):
        made += list(loop(tmp_path / "b", evaluations).steps(1, {}, per_step=5))
    evaluations.count_private(9.6, "weights")
    with pytest.raises(RunFailed, match="'more' would bring the private .* 11, but .* plans 10"):
        evaluations.count_private(1, "more")
    assert made == [] and (evaluations.private, evaluations.public) == (10, 20)


def test_loops_without_gradients_and_those_of_mechanisms_are_not_counted(tmp_path: Path) -> None:
    evaluations = GradientEvaluations(0, 0)
    assert list(loop(tmp_path, evaluations).steps(3, {}, unit="files")) == [0, 1, 2]
    again = loop(tmp_path / "private", evaluations)
    (tmp_path / "private").mkdir()
    assert list(again.steps(3, {}, counted=True)) == [0, 1, 2]


def test_a_loop_that_resumes_counts_its_whole_length(tmp_path: Path) -> None:
    stage = loop(tmp_path, GradientEvaluations())
    for step in stage.steps(2, {}):
        assert step < 2
    evaluations = GradientEvaluations()
    assert list(loop(tmp_path, evaluations).steps(2, {}, per_step=4)) == []
    assert evaluations.public == 8


def test_loops_over_images_that_were_given_away_are_private(tmp_path: Path) -> None:
    evaluations = GradientEvaluations(private=6, public=0)
    evaluations.give_images()
    assert len(list(loop(tmp_path, evaluations).steps(2, {}, per_step=3))) == 2
    assert (evaluations.private, evaluations.public) == (6, 0)


def test_without_a_plan_there_is_no_limit() -> None:
    evaluations = GradientEvaluations()
    evaluations.count_private(1e15, "weights")
    assert evaluations.private == 10**15 < math.inf
