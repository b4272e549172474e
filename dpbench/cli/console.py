"""Progress of a run: live bars on a terminal, occasional lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from rich.console import Console, RenderableType
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

from dpbench.core.progress import IN_WORDS, Progress, Task, duration
from dpbench.core.text import visible

SECONDS_BETWEEN_LINES = 15.0
NO_PARTS: Mapping[str, float] = MappingProxyType({})
_SHORT = 2.0  # seconds; parts that end sooner are not announced


def progress_on(console: Console, parts: Mapping[str, float] = NO_PARTS) -> Progress:
    """Progress for a console: live bars on a terminal, plain lines otherwise.

    Args:
        console: Where to show it.
        parts: Seconds that each part of a run is expected to take, in their order; with them the
            run as a whole is shown too.
    """
    whole = WholeRun(parts)
    return _Bars(console, whole) if console.is_terminal else _Lines(console, whole)


class WholeRun:
    """How far a run is, by the time that its parts are expected to take.

    Args:
        parts: Seconds of each part, in their order.
    """

    def __init__(self, parts: Mapping[str, float]) -> None:
        """Begin before the first part."""
        self._names, self._expected = list(parts), list(parts.values())
        self._place: int | None = None
        self._began = 0.0

    def enter(self, name: str) -> float:
        """Begin a part; return the seconds that it is expected to take, 0 if nothing is known."""
        self._place = self._names.index(name) if name in self._names else None
        self._began = time.monotonic()
        return 0.0 if self._place is None else self._expected[self._place]

    def leave(self) -> None:
        """End the part."""
        self._place = None

    def __str__(self) -> str:
        """Say which part this is, and how long it and those that follow will take."""
        if self._place is None:
            return ""
        name = self._names[self._place]
        here = self._expected[self._place] - (time.monotonic() - self._began)
        left = max(0.0, here) + sum(self._expected[self._place + 1 :])
        return (
            f"part {self._place + 1} of {len(self._names)}, {IN_WORDS.get(name, name)}; about "
            f"{duration(left)} left in all"
        )


class _Rate(ProgressColumn):
    """Amount done, total and speed, with their unit."""

    def render(self, task: RichTask) -> Text:
        unit = task.fields["unit"]
        speed = f" {task.speed:,.0f} {unit}/s" if task.speed else ""
        return Text(f"{task.completed:,.0f}/{task.total or 0:,.0f}{speed}")


class _Display(RichProgress):
    """Bars, and below them how far the run as a whole is."""

    def __init__(self, whole: WholeRun, *columns: ProgressColumn, console: Console) -> None:
        self._whole = whole
        super().__init__(*columns, console=console)

    def get_renderables(self) -> Iterator[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if said := str(self._whole):
            yield Text(said, "dim")


class _Bars:
    def __init__(self, console: Console, whole: WholeRun) -> None:
        self._console = console
        self._whole = whole
        self._live: RichProgress | None = None

    def note(self, text: str) -> None:
        self._console.print(Text(visible(text), "dim"), soft_wrap=True)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._whole.enter(name)
        with self._display():
            try:
                yield
            finally:
                self._whole.leave()  # before the display is shown for the last time

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
        with _Display(self._whole, *columns, console=self._console) as self._live:
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
    def __init__(self, console: Console, whole: WholeRun) -> None:
        self._console = console
        self._whole = whole

    def note(self, text: str) -> None:
        self._console.print(Text(visible(text)), soft_wrap=True)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        if self._whole.enter(name) > _SHORT:
            self.note(str(self._whole))
        yield
        self._whole.leave()

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
