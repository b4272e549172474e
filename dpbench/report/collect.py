"""The committed records and scores that all tables derive from, and how runs get there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dpbench.core.errors import UserError
from dpbench.core.files import safe_name, write_text
from dpbench.records import correctness
from dpbench.records.run_record import RunRecord, find_records, read_record
from dpbench.records.sample_scores import UNKNOWN, Scores, read_scores

RECORDS, SCORES = "records", "scores"
ID_DIGITS = 8  # of a record's id, in names of files and on the command line
DRAWN = ("checkpoint.pt", "samples.npz")  # what a second training draws again


def collect(
    runs_dir: Path, leaderboards: Path, replace: Sequence[str] = ()
) -> tuple[list[Path], list[Path]]:
    """Copy the complete records below ``runs_dir`` to ``leaderboards/records``.

    With them goes which test images were classified rightly, where the runs kept it. A record that
    is there already is replaced where the run was measured further, and never by a second training
    under the same id, whose noise is another: the better of two draws would be taken.

    Args:
        runs_dir: Folder of the runs.
        leaderboards: Folder of the leaderboards.
        replace: Ids, or their first 8 or more digits, of records that others may replace.

    Returns:
        Records that are new or changed there, and record files of runs that are not complete.

    Raises:
        UserError: A record or what was kept cannot be read, or a record would be replaced. Nothing
            is copied then.
    """
    found = [(file, read_record(file)) for file in find_records(runs_dir)]
    complete = [(file, record) for file, record in found if record.status == "complete"]
    incomplete = [file for file, record in found if record.status != "complete"]
    for file, record in complete:
        _refuse_replacing(file, record, committed_file(record, leaderboards), replace)
    copied = []
    for file, record in complete:
        target = committed_file(record, leaderboards)
        text = file.read_text(encoding="utf-8")  # as it is: also what an older version wrote
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_text(target, text)
            copied.append(target)
        if correct := correctness.correct_of_run(file.parent, record):
            correctness.write_correct(target, correct)
    return copied, incomplete


def _refuse_replacing(file: Path, new: RunRecord, target: Path, replace: Sequence[str]) -> None:
    named = any(len(each) >= ID_DIGITS and new.spec.id.startswith(each) for each in replace)
    if named or not target.exists() or target.read_bytes() == file.read_bytes():
        return
    if not _continues(new, read_record(target)):
        raise UserError(
            f"{file} is another run than the record {new.spec.id[:ID_DIGITS]} of the same id in "
            f"{target}: `dpbench report --replace {new.spec.id[:ID_DIGITS]}` puts it there"
        )


def _continues(new: RunRecord, old: RunRecord) -> bool:
    """Whether a record is of the same training and samples, with no value changed or lost."""
    measured = [each for each in old.measurements if each.value is not None]
    return (
        new.privacy == old.privacy
        and new.timings.get("fit") == old.timings.get("fit")
        and all(new.artifacts.get(name) == old.artifacts.get(name) for name in DRAWN)
        and all(each in new.measurements for each in measured)
    )


def committed_file(record: RunRecord, leaderboards: Path) -> Path:
    """The file of a record among the leaderboards."""
    return leaderboards / RECORDS / f"{record.spec.folder}.json"


def collect_scores(evaluations: Path, leaderboards: Path) -> None:
    """Copy the scores of samples of unknown origin to ``leaderboards/scores``.

    Those of a run's samples are left out: its record has them, with what it claims.

    Raises:
        UserError: Scores cannot be read.
    """
    for file in sorted(evaluations.rglob("*.json")):
        scores = read_scores(file)
        if scores.spec.origin == UNKNOWN:
            name = f"{safe_name(scores.spec.name)}-{scores.spec.id[:8]}.json"
            target = leaderboards / SCORES / safe_name(scores.spec.dataset) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            write_text(target, scores.dumps())


def committed_records(leaderboards: Path) -> list[RunRecord]:
    """The committed records.

    Raises:
        UserError: One of them cannot be read, or is of a run that is not complete.
    """
    found = []
    for file in sorted((leaderboards / RECORDS).rglob("*.json")):
        record = read_record(file)
        if record.status != "complete":
            raise UserError(f"{file} is of a run that is not complete: remove it")
        found.append(record)
    return found


def committed_scores(leaderboards: Path) -> list[Scores]:
    """The committed scores of samples of unknown origin.

    Raises:
        UserError: One of them cannot be read, or is of a run's samples.
    """
    found = []
    for file in sorted((leaderboards / SCORES).rglob("*.json")):
        scores = read_scores(file)
        if scores.spec.origin != UNKNOWN:
            raise UserError(f"{file} is of a run's samples, and the run has a record: remove it")
        found.append(scores)
    return found
