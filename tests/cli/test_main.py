"""Whatever ends the command line before it can speak is said in one line."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from dpbench.__main__ import main


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        (lambda: signal.raise_signal(signal.SIGINT), 130, "Interrupted."),
        (lambda: signal.raise_signal(signal.SIGTERM), 143, "Interrupted."),
        (lambda: signal.raise_signal(signal.SIGHUP), 129, "Interrupted."),
        (lambda: bytearray(sys.maxsize), 1, "Error: out of memory at the start: allow more"),
    ],
)
def test_an_end_while_modules_are_imported_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    end: object,
    code: int,
    said: str,
) -> None:
    class Importing(ModuleType):
        def __getattr__(self, name: str) -> object:
            return end() if name == "main" else None  # type: ignore[operator]

    before = [signal.getsignal(number) for number in (2, 15, 1)]
    monkeypatch.setitem(sys.modules, "dpbench.cli", Importing("dpbench.cli"))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    assert capsys.readouterr().err == f"{said}\n"
    assert [signal.getsignal(number) for number in (2, 15, 1)] == before


INTERRUPTED_WITHIN_EXEC = """
import sys, types

def command_line():
    try:
        exec("import signal; signal.raise_signal(signal.SIGTERM)")
    except KeyboardInterrupt:
        sys.exit(143)

sys.modules["dpbench.cli"] = types.ModuleType("dpbench.cli")
sys.modules["dpbench.cli"].main = command_line
from dpbench.__main__ import main
main()
"""


def test_the_exit_code_holds_where_the_signal_came_while_a_string_was_executed(
    tmp_path: Path,
) -> None:
    (tmp_path / "interrupted.py").write_text(INTERRUPTED_WITHIN_EXEC)
    ended = subprocess.run([sys.executable, "-m", "interrupted"], cwd=tmp_path, timeout=60)
    assert ended.returncode == 143
