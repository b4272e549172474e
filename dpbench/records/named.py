"""Records and scores as a user names them: by a file, a run's folder, or the beginning of an id."""

from __future__ import annotations

import re
from pathlib import Path

from dpbench.core.errors import UserError
from dpbench.core.regular import read_regular
from dpbench.records.run_record import LARGEST, RECORD, RunRecord, find_records, read_record
from dpbench.records.sample_scores import KIND, Scores, read_scores

_ID = re.compile("[0-9a-f]{4,64}")


def file_named(what: str, runs: Path) -> Path:
    """The file that is meant.

    Args:
        what: A file, a run's folder, or the first digits of a run's id, at least 4.
        runs: Folder of the runs that ids are looked for in.

    Raises:
        UserError: There is none, or there are several.
    """
    path = Path(what)
    if path.is_dir():
        path /= RECORD
    if path.is_file():
        return path
    found = []
    if _ID.fullmatch(what):
        # a run's folder ends in the first digits of its id
        ends = {file: file.parent.name.rpartition("-")[2] for file in find_records(runs)}
        found = [file for file, end in ends.items() if end and end[: len(what)] == what[: len(end)]]
    if not found:
        raise UserError(
            f"there is no run {what}: give a run's folder, a file, or the first digits of the id "
            f"of a run in {runs}"
        )
    if found[1:]:
        raise UserError(
            f"{len(found)} runs in {runs} have an id that starts with {what}: give more"
        )
    return found[0]


def records_of(method: str, folder: Path) -> list[Path]:
    """The records of a method's runs, which are in a folder of its name, below ``folder``."""
    return [file for file in find_records(folder) if file.parent.parent.name == method]


def read_named(file: Path) -> RunRecord | Scores:
    """Read a record, or scores of samples.

    Raises:
        UserError: It cannot be read, is neither, or was edited.
    """
    text = read_regular(file, LARGEST)
    return read_scores(file, text) if f'"{KIND}"'.encode() in text else read_record(file, text)
