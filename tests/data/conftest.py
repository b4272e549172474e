from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """The user's cache: an empty folder, which no data root stands before."""
    if "real_environment" not in request.fixturenames:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
        monkeypatch.delenv("DPBENCH_DATA", raising=False)
    return tmp_path / "caches" / "dpbench"


@pytest.fixture
def tiny_cache(cache: Path) -> Path:
    """Where the tiny data set in IDX files is cached."""
    return cache / "tiny"


@pytest.fixture
def real_environment() -> None:
    """Keeps the machine's own caches and variables."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root, still empty."""
    (tmp_path / "root").mkdir()
    return tmp_path / "root"
