"""Whatever ends the command line before it can speak is said in one line."""

from __future__ import annotations

import signal
import sys
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
