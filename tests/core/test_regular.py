from __future__ import annotations

import os
from pathlib import Path

import pytest

from dpbench.core.checks import check_name
from dpbench.core.errors import UserError
from dpbench.core.regular import open_regular, read_regular


def test_regular_files_and_links_to_them_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for name in ("file", "link"):
        assert read_regular(tmp_path / name, 3) == b"abc"
    with pytest.raises(UserError, match="file is larger than 2 bytes"):
        read_regular(tmp_path / "file", 2)


def test_what_may_never_end_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "zeros", "folder"):
        with pytest.raises(UserError, match=f"{name} is no regular file"):
            open_regular(tmp_path / name)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    for name in ("nowhere", "nul\0"):
        with pytest.raises(UserError, match=f"{name[:3]}.* cannot be read"):
            open_regular(tmp_path / name)


@pytest.mark.parametrize("name", ["café", "雪", "a b", "T-shirt/top", "👩‍👩‍👧"])
def test_names_that_can_be_kept_pass(name: str) -> None:
    check_name(name, "a class")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (os.fsdecode(b"caf\xe9"), r"'caf\\udce9', is no UTF-8"),
        ("\x1b[2J", r"'\\x1b\[2J', has control characters"),
        ("two\nlines", r"'two\\nlines', has control characters"),
    ],
)
def test_names_that_records_cannot_keep_are_refused_in_plain_letters(
    name: str, message: str
) -> None:
    with pytest.raises(UserError, match=f"the name of a class, {message}"):
        check_name(name, "a class")
