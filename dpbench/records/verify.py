"""Verify that a record's privacy claim follows from the events in the record.

Epsilon is computed again from the events alone and compared with the claim, and so is everything
else that the record states twice. This reveals mistakes and edits by hand. It cannot show that the
events happened, and it misses a forger who changes everything consistently; audits and the tests of
the mechanisms cover those.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dpbench.core.errors import UserError
from dpbench.records.accounts import Accounts
from dpbench.records.alarms import ALARMS, count_alarms
from dpbench.records.contradictions import Contradictions
from dpbench.records.run_record import RECORD, RunRecord, edits, find_records, parse_record

COMMITTED = "records"  # folder of the committed records, among the leaderboards


@dataclass(frozen=True)
class Verdict:
    """The result of verifying a record.

    Attributes:
        file: The record's file.
        record: What is in it.
        epsilon: The claimed epsilon; None where no claim can be read.
        recomputed: Epsilon of the events; None where they cannot be read or there is no budget.
        contradictions: What in it does not agree, one line each.
        alarms: How its own audit refutes its claim, one line each.
        unchecked: What could not be checked and why, one line each.
    """

    file: Path
    record: RunRecord
    epsilon: float | None
    recomputed: float | None
    contradictions: tuple[str, ...]
    alarms: tuple[str, ...]
    unchecked: tuple[str, ...]

    @property
    def wrong(self) -> tuple[str, ...]:
        """Contradictions and alarms."""
        return self.contradictions + self.alarms

    @property
    def verified(self) -> bool:
        """Whether nothing is wrong."""
        return not self.wrong


def records_at(path: Path) -> list[Path]:
    """The files of the records that a path names: a record, a run's folder, or a folder of runs.

    Raises:
        UserError: There is no record.
    """
    found = [path]
    if path.is_dir():
        own = path / RECORD
        found = [own] if own.is_file() else [*find_records(path)]
        if not found:  # committed records have names of their own
            committed = path / COMMITTED if (path / COMMITTED).is_dir() else path
            found = sorted(file for file in committed.rglob("*.json") if file.is_file())
    if not found or not found[0].is_file():
        raise UserError(f"there is no record at {path}: give a record's file or a folder of runs")
    return found


def verify(file: Path, accounts: Accounts | None = None, text: bytes | None = None) -> Verdict:
    """Check a record and the files beside it that it names, without unpickling any.

    Args:
        file: The record's file.
        accounts: Compute what certificates state; by default nothing is remembered.
        text: The record's content, where it was read already or is not written yet.

    Raises:
        UserError: It is not a record.
    """
    record, content = parse_record(file, text)
    checks = Contradictions(file, record, accounts or Accounts())
    checks.wrong += edits(record, content)
    checks.certificate()
    checks.parts()
    checks.artifacts()
    return Verdict(
        file=file,
        record=record,
        epsilon=checks.claimed,
        recomputed=checks.recomputed,
        contradictions=tuple(checks.wrong),
        alarms=_alarms(record),
        unchecked=tuple(checks.unchecked),
    )


def check_committed(verdict: Verdict) -> None:
    """Refuse a record for a leaderboard; alarms of its audit are no reason, since they are shown.

    Raises:
        UserError: It is of a run that is not complete, or something contradicts it: one line that
            names it.
    """
    if verdict.record.status != "complete":
        raise UserError(f"{verdict.file} is of a run that is not complete: remove it")
    if found := verdict.contradictions:
        more = f" (and {len(found) - 1} more: `dpbench verify` says all)" if found[1:] else ""
        raise UserError(f"{verdict.file} is rejected: {found[0]}{more}")


def _alarms(record: RunRecord) -> tuple[str, ...]:
    if not (count := count_alarms(record)):
        return ()
    return (
        f"its audit refutes the claim ({ALARMS} is {count}): do not use its samples, and run "
        "`dpbench audit`, which names the checks",
    )
