from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from tests.support.chaos import Place, run, run_here, start
from tests.support.chaos_runs import COMMAND, TIMED, Lab, whole_of
from tests.support.chaos_table import SEED


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "place").make()


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers of the case's own."""
    return random.Random(f"{request.config.getoption(SEED)} {request.node.name}")


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Fill a cache, import all that a run imports, and run without interruption."""
    first = Place(tmp_path_factory.mktemp("chaos") / "first").make()
    run_here(first, *COMMAND)
    assert (ended := run(first, *TIMED, "--out", "timed")).code == 0, str(ended)
    second = Place(first.root.with_name("second")).make()
    shutil.copytree(first.cache, second.cache, dirs_exist_ok=True)
    running = start(second, *COMMAND)
    assert (ended := running.end()).code == 0, str(ended)
    assert running.child.usage is not None
    seconds = running.child.usage.ru_utime + running.child.usage.ru_stime
    folder = second.work / "here"
    return Lab(second.cache, whole_of(folder, seconds), folder, request.config.getoption(SEED))
