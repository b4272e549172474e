"""The committed records and scores that all tables derive from, and how runs get there."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dpbench.core.errors import UserError
from dpbench.core.files import safe_name
from dpbench.core.regular import read_regular
from dpbench.records import correctness
from dpbench.records.accounts import Accounts
from dpbench.records.run_record import LARGEST, RunRecord, find_records, read_record
from dpbench.records.sample_scores import UNKNOWN, Scores, read_scores
from dpbench.records.verify import COMMITTED as RECORDS
from dpbench.records.verify import check_committed, verify

SCORES = "scores"
ID_DIGITS = 8  # of a record's id, in names of files and on the command line
DRAWN = ("checkpoint.pt", "samples.npz")  # what a second training draws again


@dataclass
class Collected:
    """What is to be written among the leaderboards, and what is not.

    Attributes:
        files: New contents by path: of records, of what they keep, and of scores.
        records: Those of the files that are records, new or changed.
        incomplete: Record files of runs that are not complete.
        refused: Records and scores that are left out, one line each that names the file.
    """

    files: dict[Path, bytes] = field(default_factory=dict)
    records: list[Path] = field(default_factory=list)
    incomplete: list[Path] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def collect(
    runs_dir: Path, leaderboards: Path, accounts: Accounts, replace: Sequence[str] = ()
) -> Collected:
    """Read the complete records below ``runs_dir`` that are new; nothing is written.

    With them goes which test images were classified rightly, where the runs kept it. A record that
    is there already is replaced where the run was measured further, and never by a second training
    under the same id, whose noise is another: the better of two draws would be taken.

    Args:
        runs_dir: Folder of the runs.
        leaderboards: Folder of the leaderboards.
        accounts: Compute what certificates state.
        replace: Ids, or their first 8 or more digits, of records that others may replace.

    Returns:
        What ``leaderboards/records`` gets. A record that cannot be read, contradicts itself or the
        files beside it is refused there, and keeps no other out.

    Raises:
        UserError: A record would be replaced.
    """
    found, complete = Collected(), {}
    for file in find_records(runs_dir):
        try:
            text = read_regular(file, LARGEST)  # once: what is verified is what is copied
            verdict = verify(file, accounts, text)
            record = verdict.record
            if record.status != "complete":
                found.incomplete.append(file)
                continue
            check_committed(verdict)
            complete[file] = record, text, correctness.correct_of_run(file.parent, record)
        except UserError as error:
            found.refused.append(str(error))
    for file, (record, text, correct) in complete.items():
        target = committed_file(record, leaderboards)
        _refuse_replacing(file, record, text, target, replace)
        if not target.exists() or target.read_bytes() != text:
            found.files[target] = text  # as it is: also what an older version wrote
            found.records.append(target)
        if correct:
            bits = io.BytesIO()
            correctness.write_correct(bits, correct)
            found.files[correctness.beside(target)] = bits.getvalue()
    return found


def _refuse_replacing(
    file: Path, new: RunRecord, text: bytes, target: Path, replace: Sequence[str]
) -> None:
    named = any(len(each) >= ID_DIGITS and new.spec.id.startswith(each) for each in replace)
    if named or not target.exists() or target.read_bytes() == text:
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


def collect_scores(evaluations: Path, leaderboards: Path, found: Collected) -> None:
    """Add the scores of samples of unknown origin to what ``leaderboards/scores`` gets.

    Those of a run's samples are left out: its record has them, with what it claims.
    """
    for file in sorted(each for each in evaluations.rglob("*.json") if each.is_file()):
        try:
            scores = read_scores(file)
        except UserError as error:
            found.refused.append(str(error))
            continue
        if scores.spec.origin == UNKNOWN:
            name = f"{safe_name(scores.spec.name)}-{scores.spec.id[:8]}.json"
            target = leaderboards / SCORES / safe_name(scores.spec.dataset) / name
            found.files[target] = scores.dumps().encode()


def committed_records(
    leaderboards: Path, accounts: Accounts, new: Mapping[Path, bytes] | None = None
) -> list[RunRecord]:
    """The committed records, each of them verified.

    Args:
        leaderboards: Folder of the leaderboards.
        accounts: Compute what certificates state.
        new: Contents of files that are there soon.

    Raises:
        UserError: One of them cannot be read, is contradicted, or is of a run that is not complete.
    """
    found = []
    for file, text in _documents(leaderboards / RECORDS, new or {}):
        verdict = verify(file, accounts, text)
        check_committed(verdict)
        found.append(verdict.record)
    return found


def committed_scores(leaderboards: Path, new: Mapping[Path, bytes] | None = None) -> list[Scores]:
    """The committed scores of samples of unknown origin.

    Args:
        leaderboards: Folder of the leaderboards.
        new: Contents of files that are there soon.

    Raises:
        UserError: One of them cannot be read, or is of a run's samples.
    """
    found = []
    for file, text in _documents(leaderboards / SCORES, new or {}):
        scores = read_scores(file, text)
        if scores.spec.origin != UNKNOWN:
            raise UserError(f"{file} is of a run's samples, and the run has a record: remove it")
        found.append(scores)
    return found


def _documents(folder: Path, new: Mapping[Path, bytes]) -> Iterator[tuple[Path, bytes]]:
    """Files below a folder with their contents, those that are there soon among them."""
    soon = {file for file in new if file.suffix == ".json" and file.is_relative_to(folder)}
    for file in sorted(soon.union(folder.rglob("*.json"))):
        yield file, new[file] if file in new else read_regular(file, LARGEST)
