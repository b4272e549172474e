from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.command import TOY, Command
from tests.support.reports import (
    SPEC,
    finished,
    keep,
    table,
    with_curves,
)


def test_the_check_passes_on_what_was_written_and_fails_on_what_was_edited(
    dpbench: Command,
) -> None:
    keep(finished(SPEC, 1.25), finished(replace(SPEC, dataset="mnist"), 2.0))
    dpbench("report")
    assert dpbench("report", "--check").code == 0
    file = Path("leaderboards/digits.csv")
    text = file.read_text()
    for edited in (text.replace("1.25", "99.0"), text + text.splitlines()[1] + "\n", None):
        if edited is None:
            file.unlink()
        else:
            file.write_text(edited)
        ended = dpbench("report", "--check")
        assert ended.code == 1
        assert ended.err == (
            "Error: leaderboards/digits.csv: not what the records give; run `dpbench report`\n"
        )
    Path("leaderboards/invented.csv").write_text(text)
    assert "leaderboards/invented.csv" in dpbench("report", "--check").err


def test_the_check_writes_nothing(dpbench: Command) -> None:
    keep(finished(SPEC, 1.0))
    dpbench("report")
    keep(finished(replace(SPEC, seed=1), 1.0))
    before = {file: file.read_bytes() for file in Path("leaderboards").rglob("*.*")}
    dpbench("report", "--check")
    assert {file: file.read_bytes() for file in Path("leaderboards").rglob("*.*")} == before


def test_leaderboards_can_be_made_again_from_their_records_alone(dpbench: Command) -> None:
    keep(finished(SPEC, 1 / 3))
    dpbench("report")
    text = Path("leaderboards/digits.csv").read_text()
    Path("leaderboards/digits.csv").unlink()
    Path("empty").mkdir()
    assert dpbench("report", "--runs-dir", "empty").code == 0
    assert Path("leaderboards/digits.csv").read_text() == text
    assert str(1 / 3) in text, "full precision"


def test_a_real_run_gives_rows(dpbench: Command, toy: ModuleType) -> None:
    assert dpbench(*TOY).code == 0
    assert dpbench("report", "--all").code == 0
    assert [row["metric"] for row in table()] == ["toy_mean", "toy_missing"]


REPORT = """
import sys
sys.argv = ["dpbench", "report"]
from dpbench.cli import main
try:
    main()
except SystemExit as ended:
    assert ended.code == 0
heavy = {"torch", "torchvision", "sklearn", "opacus"} & set(sys.modules)
methods = {name for name in sys.modules if name.startswith(("dpbench.gen", "dpbench.eval"))}
print(heavy | methods | ({"dpbench.runs.execute", "dpbench.api.method"} & set(sys.modules)))
"""


def test_a_report_imports_no_torch_no_method_and_no_evaluator(
    dpbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    keep(finished(SPEC, 1.0), finished(replace(SPEC, seed=1), 2.0))
    assert dpbench("report").code == 0  # new events are given to all accountants, one with torch
    ended = subprocess.run(
        [sys.executable, "-c", REPORT], capture_output=True, text=True, env=dict(os.environ)
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "set()"


HEAVY = """
import sys
sys.argv = {}
from dpbench.cli import main
try:
    main()
except SystemExit as ended:
    assert ended.code == 0
print({{"torch", "matplotlib"}} & set(sys.modules))
"""


@pytest.mark.parametrize("arguments", [["--help"], ["list"]])
def test_only_figures_need_matplotlib(arguments: list[str]) -> None:
    code = HEAVY.format(["dpbench", *arguments])
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ)
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "set()"


def test_the_check_compares_the_tables_of_curves_and_no_figures(dpbench: Command) -> None:
    keep(with_curves(SPEC))
    dpbench("report")
    for figure in Path("leaderboards/figures").iterdir():
        figure.unlink()
    assert dpbench("report", "--check").code == 0
    assert not list(Path("leaderboards/figures").iterdir())
    file = Path("leaderboards/digits.scaling.csv")
    file.write_text(file.read_text().replace("20.0", "21.0"))
    ended = dpbench("report", "--check")
    assert ended.code == 1 and str(file) in ended.err


def test_what_a_killed_report_was_writing_is_removed_by_the_next(dpbench: Command) -> None:
    keep(finished(SPEC, 1.0))
    assert dpbench("report").code == 0
    left = [
        Path("leaderboards", name) for name in (".a.csv.99.partial", "figures/.b.png.7.partial")
    ]
    kept = Path("leaderboards/.notes.partial")
    for file in (*left, kept):
        file.parent.mkdir(exist_ok=True)
        file.write_text("half")
    assert dpbench("report").code == 0
    assert not any(file.exists() for file in left) and kept.exists()
    assert not Path("leaderboards/.lock").exists()


def test_a_report_that_cannot_write_all_writes_nothing(
    dpbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(finished(SPEC, 1.0))
    assert dpbench("report").code == 0
    keep(finished(replace(SPEC, seed=1), 2.0))
    before = {file: file.read_bytes() for file in Path("leaderboards").rglob("*.*")}

    def full(descriptor: int) -> None:
        if len([*Path("leaderboards").rglob("*.partial")]) > 3:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        ended = dpbench("report")
    assert ended.code == 2 and "cannot write to leaderboards: No space left" in ended.err
    assert {file: file.read_bytes() for file in Path("leaderboards").rglob("*.*")} == before
