from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.command import TOY, Command


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an honest run, which the first test that needs it makes."""
    return tmp_path_factory.mktemp("honest") / "here"


@pytest.fixture
def run(dpbench: Command, toy: ModuleType, tmp_path: Path, honest: Path) -> Path:
    """A copy of the honest run, for a test to edit."""
    if not honest.exists():
        assert dpbench(*TOY, "--out", honest).code == 0
    return Path(shutil.copytree(honest, tmp_path / "here"))
