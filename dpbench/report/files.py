"""The files that a report writes or checks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dpbench.core.errors import UserError
from dpbench.core.files import locked, remove_partials, write_all

LOCK = ".lock"


def write(files: Mapping[Path, str | bytes], leaderboards: Path) -> None:
    """Write files by path, all or none, and clean up after reports that were killed.

    Another report that is writing there is waited for.

    Args:
        files: Contents by path, all of them below ``leaderboards``.
        leaderboards: The folder; it is made if there is anything to write.

    Raises:
        UserError: The folder cannot be written to.
    """
    contents = {
        file: content.encode() if isinstance(content, str) else content
        for file, content in files.items()
    }
    if not contents:
        return
    try:
        leaderboards.mkdir(parents=True, exist_ok=True)
        with locked(leaderboards / LOCK, lambda: None):
            remove_partials(leaderboards)
            write_all(contents)
    except OSError as error:
        raise UserError(
            f"cannot write to {leaderboards}: {error.strerror}; choose another --out"
        ) from error


def stale(files: Mapping[Path, str], leaderboards: Path) -> list[Path]:
    """Files that are not what the records give: changed, missing, or without any record.

    Args:
        files: All that the records give, texts by path.
        leaderboards: Where they are.
    """
    present = {*leaderboards.glob("*.csv"), *leaderboards.glob("*.html")}
    return sorted(
        {
            file
            for file, text in files.items()
            if file not in present or file.read_bytes() != text.encode()
        }
        | (present - files.keys())
    )
