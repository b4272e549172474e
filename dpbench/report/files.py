"""The files that a report writes or checks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dpbench.core.files import write_text


def write(files: Mapping[Path, str]) -> None:
    """Write texts by path, such as ``files``."""
    for file, text in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, text)


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
            if file not in present or file.read_text(encoding="utf-8") != text
        }
        | (present - files.keys())
    )
