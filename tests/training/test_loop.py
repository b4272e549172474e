from __future__ import annotations

import os
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from dpbench.core.progress import Silent
from dpbench.core.signals import deferred
from dpbench.training import loop
from dpbench.training.loop import Stage


class Sum:
    """The simplest thing that training can change."""

    def __init__(self) -> None:
        self.value = 0

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


def train(file: Path, total: int = 5, stop_at: int | None = None) -> tuple[Sum, list[int]]:
    state, steps = Sum(), []
    stage = Stage("training", file, Silent())
    try:
        for step in stage.steps(total, {"sum": state}):
            steps.append(step)
            if step == stop_at:
                signal.raise_signal(signal.SIGINT)
            state.value += step
    except KeyboardInterrupt:
        assert stop_at is not None
    return state, steps


def test_a_loop_does_its_steps_once_each(tmp_path: Path) -> None:
    state, steps = train(tmp_path / "stage")
    assert (state.value, steps) == (10, [0, 1, 2, 3, 4])
    state, steps = train(tmp_path / "stage")
    assert (state.value, steps) == (10, []), "a complete stage was run again"


def test_an_interrupted_loop_finishes_its_step_and_resumes_after_it(tmp_path: Path) -> None:
    state, steps = train(tmp_path / "stage", stop_at=2)
    assert (state.value, steps) == (3, [0, 1, 2])
    state, steps = train(tmp_path / "stage")
    assert (state.value, steps) == (10, [3, 4])


def test_an_interrupt_in_the_last_step_still_ends_the_run(tmp_path: Path) -> None:
    _, steps = train(tmp_path / "stage", stop_at=4)
    assert steps == [0, 1, 2, 3, 4]
    assert train(tmp_path / "stage")[1] == []


def test_state_is_saved_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    stage = Stage("training", tmp_path / "stage", Silent())
    state = Sum()
    for step in stage.steps(5, {"sum": state}):
        if step == 3:
            break
        state.value += step
    assert train(tmp_path / "stage")[1] == [3, 4]


def test_training_state_is_for_its_owners_eyes_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        train(tmp_path / "stage")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "stage").stat().st_mode) == 0o600


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_held_and_the_second_is_not(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with deferred() as interrupted:
        assert not interrupted()
        signal.raise_signal(number)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before
