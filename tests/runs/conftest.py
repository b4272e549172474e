from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from tests.support.command import TOY, Command, contents


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a reproducible run, which the first test that needs it makes."""
    return tmp_path_factory.mktemp("uninterrupted") / "whole"


@pytest.fixture
def whole(dpbench: Command, toy: ModuleType, uninterrupted: Path) -> dict[str, bytes]:
    """What a run gives that nothing interrupts."""
    if not uninterrupted.exists():
        assert dpbench(*TOY, "--reproducible", "--out", uninterrupted).code == 0
        toy.CALLS.clear()
    return contents(uninterrupted)
