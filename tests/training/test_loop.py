from __future__ import annotations

import io
import os
import signal
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from dpbench.cli import console
from dpbench.cli.console import progress_on
from dpbench.core.files import replace_atomically, write_bytes, write_text, write_torch
from dpbench.core.progress import Silent, duration
from dpbench.training import loop
from dpbench.training.loop import Stage, deferred_interrupts


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_held_and_the_second_is_not(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with deferred_interrupts() as interrupted:
        assert not interrupted()
        signal.raise_signal(number)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before


# --- files


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    file = tmp_path / "file"

    def fail(partial: Path) -> None:
        partial.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_atomically(file, fail)
    assert not list(tmp_path.iterdir())
    write_text(file, "old")
    with pytest.raises(OSError, match="disk full"):
        replace_atomically(file, fail)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_secret_file_is_secret_before_anything_is_in_it(tmp_path: Path) -> None:
    modes = []

    def write(partial: Path) -> None:
        modes.append(stat.S_IMODE(partial.stat().st_mode))

    replace_atomically(tmp_path / "key", write, 0o600)
    assert modes == [0o600]
    write_bytes(tmp_path / "key", b"secret", 0o600)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_a_torch_file_depends_on_its_content_only(tmp_path: Path) -> None:
    write_torch(tmp_path / "one.pt", {"x": torch.ones(3)})
    write_torch(tmp_path / "another.pt", {"x": torch.ones(3)})
    content = (tmp_path / "one.pt").read_bytes()
    assert content == (tmp_path / "another.pt").read_bytes()
    assert b"partial" not in content


# --- what a person sees


def lines_of(total: float, amounts: list[float]) -> list[str]:
    text = io.StringIO()
    progress = progress_on(Console(file=text, width=40))
    with progress.task("private [training]", total, "images") as task:
        for amount in amounts:
            task.advance(amount, "epsilon 1.00")
    return text.getvalue().splitlines()


def test_progress_in_a_pipe_is_one_line_at_the_end() -> None:
    assert lines_of(1000, [400, 600]) == ["private [training]: 1,000/1,000 images, epsilon 1.00"]


def test_progress_in_a_pipe_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", -1.0)
    said = lines_of(1000, [400, 600])
    assert [line.split()[2] for line in said] == ["400/1,000", "1,000/1,000"], "one line too many"


def test_progress_on_a_terminal_is_a_bar_with_its_unit_and_note() -> None:
    text = io.StringIO()
    progress = progress_on(Console(file=text, width=120, force_terminal=True))
    with progress.task("private [training]", 1000, "images", done=500) as task:
        with progress.task("within it", 7, "rows") as inner:
            inner.advance(7)
        task.advance(500, "epsilon 1.00")
    progress.note("a [note]")
    for words in ("private [training]", "1,000/1,000", "epsilon 1.00", "within it", "a [note]"):
        assert words in text.getvalue()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (119.7, "2 min 00 s"),
        (3599.9, "1 h 00 min"),
        (7800, "2 h 10 min"),
        (7199, "2 h 00 min"),
        (1e6, "12 days"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words
