from __future__ import annotations

import stat
from pathlib import Path

import pytest

from dpbench.core.files import replace_atomically, write_bytes, write_text


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    file = tmp_path / "file"

    def fail(partial: Path) -> None:
        partial.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_atomically(file, fail)
    assert not list(tmp_path.iterdir())
    write_text(file, "old")
    with pytest.raises(OSError, match="disk full"):
        replace_atomically(file, fail)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_secret_file_is_secret_before_anything_is_in_it(tmp_path: Path) -> None:
    modes = []

    def write(partial: Path) -> None:
        modes.append(stat.S_IMODE(partial.stat().st_mode))

    replace_atomically(tmp_path / "key", write, 0o600)
    assert modes == [0o600]
    write_bytes(tmp_path / "key", b"secret", 0o600)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
