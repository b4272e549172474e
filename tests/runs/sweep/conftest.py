from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest

from dpbench.runs.sweep import execute
from tests.support.command import Command, Ended


@pytest.fixture
def ends(dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[Ended]:
    """How the runs of a sweep ended, which are in this process: it is quicker, and has hooks."""
    found: list[Ended] = []

    def in_this_process(arguments: list[str], interrupted: Callable[[], bool]) -> int:
        found.append(dpbench(*arguments))
        return found[-1].code

    monkeypatch.setattr(execute, "run_in_process", in_this_process)
    return found
