"""The folder of a run: who may write there, and what an earlier run left."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from dpbench.core.errors import UserError
from dpbench.core.files import locked
from dpbench.records.run_record import KEPT, RECORD, RELEASES, RunRecord, RunSpec, read_record
from dpbench.runs.resuming import read_earlier
from dpbench.runs.training_folder import TRAINING, remove

CHECKPOINT, SAMPLES, GRID = "checkpoint.pt", "samples.npz", "grid.png"
LOCK = ".lock"  # there while a process is at work in the folder, or after one was killed


def locked_folder(folder: Path) -> AbstractContextManager[None]:
    """Keep other processes out of a run's folder.

    Raises:
        UserError: On entry, if another process is at work there.
    """

    def refuse() -> None:
        raise UserError(f"another process is at work in {folder}: wait for it")

    return locked(folder / LOCK, refuse)


def open_record(folder: Path, spec: RunSpec, overwrite: bool) -> RunRecord:
    """The record in a folder, or a new one.

    Args:
        folder: Of the run, locked by this process.
        spec: What the record must be of.
        overwrite: Discard the run that is there.

    Raises:
        UserError: The folder holds something else, or another run, or an unreadable record.
    """
    for name in (CHECKPOINT, RELEASES, SAMPLES, GRID, f"{KEPT}*.npz", RECORD):
        for partial in folder.glob(f".{name}.*.partial"):  # what a killed process was writing
            partial.unlink()
    file = folder / RECORD
    if not file.exists():
        if any(found.name != LOCK for found in folder.iterdir()):
            raise UserError(f"{folder} is not empty and holds no run: choose another --out")
        return RunRecord(spec)
    if overwrite:
        discard(folder)
        return RunRecord(spec)
    advice = "choose another --out, or discard it with --overwrite"
    return read_earlier(file, read_record, spec, f"{folder} holds another run", advice)


def discard(folder: Path) -> None:
    """Remove an earlier run, and nothing else that a user may keep beside it."""
    remove(folder / TRAINING)
    # the record last: it marks the folder
    kept = [file.name for file in folder.glob(f"{KEPT}*.npz")]
    for name in (CHECKPOINT, RELEASES, SAMPLES, GRID, *kept, RECORD):
        (folder / name).unlink(missing_ok=True)
