from __future__ import annotations

import os
import signal

# before torch is imported, and for subprocesses: the suite is many small computations, on which
# threads only wait for each other
os.environ["OMP_NUM_THREADS"] = "1"

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from dpbench import cli
from tests.support import chaos_table
from tests.support.command import PLUGINS, Command, Ended

torch.set_num_threads(1)


@pytest.fixture
def dpbench(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    """Run the command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DPBENCH_DATA", raising=False)

    def command(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["dpbench", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Ended(code, captured.out, captured.err)

    return command


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Install a third-party method and make its evaluator the only one: its runs take a moment."""
    monkeypatch.syspath_prepend(PLUGINS)
    from dpbench.core import registry
    from dpbench.runs import evaluation

    def entries(kind: registry.Kind) -> dict[str, registry.Entry]:
        found = registry.entries(kind)
        return {"toy": found["toy"]} if kind == "evaluator" else found

    monkeypatch.setattr(evaluation, "entries", entries)
    import toy

    yield toy
    toy.HOOKS.clear()
    toy.CALLS.clear()


@pytest.fixture(autouse=True, scope="session")
def interrupts_are_not_ignored() -> None:
    """Undo what a shell or nohup does to background jobs: signals are ignored, and stay so."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    chaos_table.add_options(parser)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chaos_table.select(config, items)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures of the chaos that was tried, and the mutation matrix if its tests ran."""
    chaos_table.print_table(terminalreporter)
    _print_mutation_matrix(terminalreporter)


def _print_mutation_matrix(terminalreporter: pytest.TerminalReporter) -> None:
    """Mutant, what it breaks, detector, caught."""
    rows = [("mutant", "what it breaks", "detector", "caught")]
    for outcome, caught in (("passed", "yes"), ("failed", "NO")):
        for report in terminalreporter.stats.get(outcome, []):
            mutant = dict(report.user_properties).get("mutant")
            if report.when == "call" and mutant:
                rows.append((*mutant, caught))
    if len(rows) == 1:
        return
    terminalreporter.section("mutation matrix")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        terminalreporter.write_line("  ".join(cells).rstrip())
    survivors = sum(row[3] == "NO" for row in rows)
    terminalreporter.write_line(f"{len(rows) - 1} mutants, {survivors} survived")
