"""A console that cannot be printed to."""

from __future__ import annotations

import errno
import io
import sys
from types import ModuleType
from typing import TextIO, cast

import pytest
from rich.console import Console

from dpbench.cli.console import progress_on
from dpbench.cli.standard_error import Heedless
from tests.support.command import TOY, Command


class Broken(io.StringIO):
    """A stream on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self) -> None:
        self.write("")


def closed() -> TextIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [Broken, closed, lambda: None])
@pytest.mark.parametrize("terminal", [True, False])
def test_what_cannot_be_printed_is_dropped(
    stream: type[TextIO], terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    progress = progress_on(Console(file=cast(TextIO, Heedless()), force_terminal=terminal))
    progress.note("a note")
    with progress.task("training", 10, "images") as task:
        for _ in range(10):
            task.advance(1)
            progress.note("another")


def test_what_can_be_printed_is(monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    monkeypatch.setattr(sys, "stderr", text)
    progress = progress_on(Console(file=cast(TextIO, Heedless()), force_terminal=True))
    with progress.task("training", 10, "images") as task:
        progress.note("a note")
        sys.stderr.write("by others\n")
        task.advance(10)
    for words in ("training", "a note", "by others", "10/10"):
        assert words in text.getvalue()


def test_a_run_whose_console_breaks_loses_nothing(
    dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(count: int) -> None:
        monkeypatch.setattr(sys, "stderr", Broken())

    toy.HOOKS["step"] = full
    assert dpbench(*TOY, "--out", "here").code == 0
    assert "toy_mean" in dpbench(*TOY, "--out", "here").out
