"""Names of data sets in reports: one for each content, whatever folders they were loaded from."""

from __future__ import annotations

from collections.abc import Iterable

from dpbench.core.files import safe_name

DIGITS = 8  # of a content's hash


def distinct_names(found: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Name data sets so that two of another content share neither a name nor a file.

    Args:
        found: Names and hashes of data sets. Names are those of folders, and not unique.

    Returns:
        For each the name, with the beginning of the hash where another content has the same name
        or one that gives the same file.
    """
    pairs = sorted(set(found))
    contents: dict[str, dict[str, str]] = {}
    for name, content in pairs:
        contents.setdefault(safe_name(name), {}).setdefault(content, name)
    return {
        (name, content): own[content]
        if len(own := contents[safe_name(name)]) == 1
        else f"{own[content]} {content[:DIGITS]}"
        for name, content in pairs
    }
