from __future__ import annotations

import io

import pytest
from rich.console import Console

from dpbench.cli import console
from dpbench.cli.console import progress_on


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
