"""Names that would act on a terminal, a spreadsheet or a page are shown as what they are."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

from dpbench.cli import plain
from dpbench.cli.console import progress_on
from dpbench.cli.plain import PlainConsole
from dpbench.core.metrics import Measurement
from dpbench.records.sample_scores import Scores
from dpbench.report import tables
from dpbench.report.tables import to_csv
from tests.support.command import Command
from tests.support.reports import CAS_OF_MINE, FOREIGN, SPEC, finished, keep, score

NAME = ":one: [bold]b[/] \x1b[31m\x1b]0;title\x07 \u202e $x_$ \nverified"
ACTING = ("\x1b", "\x07", "\u202e", "\nverified", "1\ufe0f\u20e3", "1\u20e3")


def assert_shown(text: str) -> None:
    assert not [each for each in ACTING if each in text], ascii(text)


@pytest.fixture(autouse=True)
def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide, so that names stay in one line."""
    monkeypatch.setenv("COLUMNS", "400")


def kept(value: float | None) -> None:
    reason = "" if value is not None else NAME
    record = finished(replace(SPEC, dataset=f"imagefolder:{NAME}", profile="laptop"), 50.0)
    record.measurements += [
        Measurement(f"=HYPERLINK({NAME})", value, NAME, True, 10, NAME, NAME, reason),
        *(Measurement(f"scaling_cas_n{n}", n / 10, "%", True, n) for n in (100, 200)),
    ]
    record.resolved["departures"] = [NAME]
    keep(record)
    score(Scores(replace(FOREIGN, name=f"@{NAME}"), measurements=[CAS_OF_MINE]))


@pytest.mark.parametrize("value", [1.5, None], ids=["value", "reason"])
def test_what_stands_in_records_is_shown(dpbench: Command, value: float | None) -> None:
    kept(value)
    (record,) = map(str, Path("runs").rglob("record.json"))
    for command in (
        *(("report",), ("report", "--json"), ("report", "--metric", "*"), ("claims",)),
        *(("verify", "runs"), ("show", record), ("show", record, "--all")),
        *(("show", "evaluations/mine.json"), ("compare", record, record)),
    ):
        ended = dpbench(*command)
        assert ended.code == 0, ended.err
        assert_shown(ended.out + ended.err)
        if command == ("report",):
            assert "imagefolder::one: [bold]b[/] \\x1b[31m" in ended.out
    pages = [*Path("leaderboards").glob("*.html"), *Path("leaderboards").glob("*.csv")]
    assert len(pages) >= 4
    for page in pages:
        assert_shown(page.read_text(encoding="utf-8"))
    for page in Path("leaderboards").glob("*.csv"):
        with page.open(newline="", encoding="utf-8") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not [cell for cell in cells if cell.startswith(("=", "@"))]


@pytest.mark.parametrize(
    "command",
    [
        ("run", "--method", NAME, "--dataset", "digits"),
        ("run", "--method", "class-mean", "--dataset", NAME),
        ("run", "--method", "class-mean", "--dataset", "digits", "--set", f"{NAME}=1"),
        ("sweep", "--methods", NAME, "--datasets", "digits"),
        ("pretrain", "--method", "dpsyngen", "--dataset", "digits", "--public", NAME),
        ("evaluate", NAME, "--dataset", "digits"),
        ("audit", "--method", NAME, "--dataset", "digits"),
        ("list", NAME),
        ("check", NAME),
        ("claims", NAME),
        ("verify", NAME),
        ("report", "--replace", NAME, "--runs-dir", NAME),
        ("bench", NAME),
        ("show", NAME),
        ("compare", NAME, NAME),
        ("release", NAME, "--out", NAME),
        ("list", "methods", NAME),
        ("list", "metrics", NAME),
        (NAME,),
    ],
    ids=lambda command: " ".join(command[:2]).replace(NAME, "NAME"),
)
def test_what_stands_in_commands_is_shown(dpbench: Command, command: tuple[str, ...]) -> None:
    ended = dpbench(*command)
    assert ended.code == 2
    assert_shown(ended.out + ended.err)


def test_an_interpreting_console_is_noticed(
    dpbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(1.5)
    monkeypatch.setattr(PlainConsole, "_shown", lambda self, text: text)
    monkeypatch.setattr(plain, "visible", lambda text: text)
    with pytest.raises(AssertionError):
        assert_shown(dpbench("report").out)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_shows_labels_and_notes(terminal: bool) -> None:
    text = io.StringIO()
    console = PlainConsole(file=text, width=400, force_terminal=terminal, color_system=None)
    progress = progress_on(console)
    with progress.task(NAME, 10, "images") as task:
        task.advance(10, NAME)
    progress.note(NAME)
    said = text.getvalue()
    assert ":one: [bold]b[/] \\x1b[31m\\x1b]0;title\\x07 \\u202e" in said
    assert not [each for each in ACTING[1:] if each in said]
    assert "\x1b[31m" not in said


def test_an_ascii_console_shows_what_it_can() -> None:
    class Ascii(io.StringIO):
        encoding = "ascii"

    text = Ascii()
    console = PlainConsole(file=text, width=40)
    console.say("caf\xe9 \udce9")
    assert text.getvalue() == "caf\\xe9 \\udce9\n"


def test_numbers_remain_numbers_in_a_csv() -> None:
    import pandas as pd

    table = pd.DataFrame({"text": ["-1.5", "+2", "=1", "-x", "+1+1", None], "n": [-1.0] * 6})
    assert to_csv(table) == "text,n\n-1.5,-1.0\n+2,-1.0\n'=1,-1.0\n'-x,-1.0\n'+1+1,-1.0\n,-1.0\n"


def test_a_csv_with_formulas_is_noticed(dpbench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "FORMULA", ())
    kept(1.5)
    dpbench("report")
    texts = [each.read_text() for each in Path("leaderboards").glob("*.csv")]
    assert any(",=HYPER" in text or ',"=HYPER' in text for text in texts)
