from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from tests.support.command import TOY, Command, contents


@pytest.fixture
def whole(dpbench: Command, toy: ModuleType, tmp_path: Path) -> dict[str, bytes]:
    """What a run gives that nothing interrupts."""
    assert dpbench(*TOY, "--reproducible", "--out", "whole").code == 0
    toy.CALLS.clear()
    return contents(tmp_path / "whole")
