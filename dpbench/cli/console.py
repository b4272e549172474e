"""Progress of a run: live bars on a terminal, occasional lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.progress import Task as RichTask
from rich.table import Column
from rich.text import Text

from dpbench.core.progress import Progress, Task, duration
from dpbench.core.text import visible

SECONDS_BETWEEN_LINES = 15.0


def progress_on(console: Console) -> Progress:
    """Progress for a console: live bars on a terminal, plain lines otherwise."""
    return _Bars(console) if console.is_terminal else _Lines(console)


class _Rate(ProgressColumn):
    """Amount done, total and speed, with their unit."""

    def render(self, task: RichTask) -> Text:
        unit = task.fields["unit"]
        speed = f" {task.speed:,.0f} {unit}/s" if task.speed else ""
        return Text(f"{task.completed:,.0f}/{task.total or 0:,.0f}{speed}")


class _Bars:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: RichProgress | None = None

    def note(self, text: str) -> None:
        self._console.print(Text(visible(text), "dim"), soft_wrap=True)

    @contextmanager
    def task(self, label: str, total: float, unit: str, done: float = 0) -> Iterator[Task]:
        with self._display() as live:
            number = live.add_task(visible(label), total=total, unit=unit, note="")
            live.update(number, completed=done)
            yield _Bar(live, number)

    @contextmanager
    def _display(self) -> Iterator[RichProgress]:
        """One display shared by nested tasks, since rich allows a single live display."""
        if self._live is not None:
            yield self._live
            return
        whole = Column(no_wrap=True)  # in a narrow window the bar shrinks first
        columns = (
            TextColumn("{task.description}", markup=False, table_column=whole),
            BarColumn(bar_width=24),
            _Rate(table_column=whole.copy()),
            TimeRemainingColumn(elapsed_when_finished=True, table_column=whole.copy()),
            TextColumn(
                "{task.fields[note]}", style="cyan", markup=False, table_column=whole.copy()
            ),
        )
        with RichProgress(*columns, console=self._console) as self._live:
            try:
                yield self._live
            finally:
                self._live = None


class _Bar:
    def __init__(self, live: RichProgress, number: TaskID) -> None:
        self._live = live
        self._number = number

    def advance(self, amount: float, note: str = "") -> None:
        fields = {"note": visible(note)} if note else {}
        self._live.update(self._number, advance=amount, **fields)  # type: ignore[arg-type]


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console

    def note(self, text: str) -> None:
        self._console.print(Text(visible(text)), soft_wrap=True)

    @contextmanager
    def task(self, label: str, total: float, unit: str, done: float = 0) -> Iterator[Task]:
        line = _Line(self, label, total, unit, done)
        yield line
        line.end()


class _Line:
    def __init__(self, out: _Lines, label: str, total: float, unit: str, done: float) -> None:
        self._out, self._label, self._total, self._unit = out, label, total, unit
        self._done = self._done_before = done
        self._done_when_said = -1.0
        self._note = ""
        self._started = self._said = time.monotonic()

    def advance(self, amount: float, note: str = "") -> None:
        self._done += amount
        self._note = note or self._note
        if time.monotonic() - self._said > SECONDS_BETWEEN_LINES:
            self.say()

    def end(self) -> None:
        if self._done != self._done_when_said:
            self.say()

    def say(self) -> None:
        self._done_when_said = self._done
        self._said = time.monotonic()
        seconds = self._said - self._started
        text = f"{self._label}: {self._done:,.0f}/{self._total:,.0f} {self._unit}"
        new = self._done - self._done_before
        if new and seconds > 1:
            speed = new / seconds
            text += f", {speed:,.0f} {self._unit}/s"
            if self._done < self._total:
                text += f", {duration((self._total - self._done) / speed)} left"
            else:
                text += f", {duration(seconds)}"
        self._out.note(text + (f", {self._note}" if self._note else ""))
