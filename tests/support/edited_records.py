"""Records that were edited by hand, or by a forger."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dpbench.records.run_record import digest

Record = dict[str, Any]


def rewrite(folder: Path, edit: Callable[[Record], None], forge: bool = False) -> None:
    """Edit a record; a forger computes its digest again."""
    file = folder / "record.json"
    content = json.loads(file.read_text())
    before = json.dumps(content)
    edit(content)
    assert json.dumps(content) != before, "the edit changed nothing"
    if forge:
        content["digest"] = digest(content)
    file.write_text(json.dumps(content))


def event(record: Record) -> Record:
    found: Record = record["privacy"]["events"][0]
    return found
