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


PARTS = {"fit": 600.0, "sample": 60.0, "quick": 1.0, "cas": 120.0}


def test_in_a_pipe_a_part_says_which_it_is_and_how_long_the_run_still_takes() -> None:
    text = io.StringIO()
    progress = progress_on(Console(file=text, width=40), PARTS)
    for name in (*PARTS, "unknown"):
        with progress.part(name), progress.task("work", 3, "images") as task:
            task.advance(3)
    said = [line for line in text.getvalue().splitlines() if not line.startswith("work")]
    assert said == [
        "part 1 of 4, training; about 13 min 01 s left in all",
        "part 2 of 4, sampling; about 3 min 01 s left in all",
        "part 4 of 4, cas; about 2 min 00 s left in all",
    ]


def test_on_a_terminal_the_whole_run_is_shown_below_the_bars_of_its_part() -> None:
    text = io.StringIO()
    progress = progress_on(Console(file=text, width=120, force_terminal=True), PARTS)
    with progress.part("fit"), progress.task("work", 3, "images") as task:
        task.advance(3)
    assert "part 1 of 4, training; about 13 min" in text.getvalue()
    last = text.getvalue().rpartition("work")[2]
    assert "part 1" not in last, "what is over is not left on the screen"
    said = len(text.getvalue())
    with progress.part("unknown"), progress.task("other", 3, "images"):
        pass
    assert "part" not in text.getvalue()[said:]


def test_the_time_left_falls_and_a_part_that_takes_longer_counts_as_about_to_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    whole = console.WholeRun(PARTS)
    whole.enter("fit")
    for seconds, left in ((0, "13 min 01 s"), (300, "8 min 01 s"), (900, "3 min 01 s")):
        now[0] = 100.0 + seconds
        assert str(whole).endswith(f"about {left} left in all")
