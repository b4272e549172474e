"""Everything that is derived from the committed records: tables, verdicts and the files of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dpbench.claims.verdicts import ClaimVerdict
from dpbench.records.accounts import Accounts
from dpbench.records.correctness import beside, read_correct
from dpbench.records.frame import measurement_frame
from dpbench.records.run_record import RunRecord
from dpbench.records.sample_scores import Scores
from dpbench.report import claims, comparisons, leaderboard, overview
from dpbench.report.alarms import find_alarms
from dpbench.report.collect import committed_file, committed_records, committed_scores
from dpbench.report.spent import spent_together
from dpbench.stats.bootstrap import Correct

TRIAL = "smoke"  # the profile whose scores mean nothing


@dataclass(frozen=True)
class Report:
    """What the committed records and scores give.

    Attributes:
        table: The leaderboard, see ``leaderboard.COLUMNS``; without rows if there are no records.
        compared: The comparisons of methods, see ``comparisons.COLUMNS``.
        verdicts: On the published claims.
        texts: Contents of all CSVs and pages by path; none without rows.
        alarms: A line for each record with an audit alarm.
        spent: What all private runs on a data set spent together, a line for each data set.
        left_out: Number of records and scores that are committed and not in the table.
    """

    table: pd.DataFrame
    compared: pd.DataFrame
    verdicts: list[ClaimVerdict]
    texts: dict[Path, str]
    alarms: list[str]
    spent: list[str]
    left_out: int


def derive(
    leaderboards: Path,
    accounts: Accounts,
    new: Mapping[Path, bytes] | None = None,
    everything: bool = False,
) -> Report:
    """Derive tables and pages from the records and scores below ``leaderboards``.

    Args:
        leaderboards: Folder of the leaderboards.
        accounts: Compute what certificates state.
        new: Contents of files below it that are there soon.
        everything: Whether runs that show only that something runs are in the tables too: those of
            profile smoke, and those that are void for release.

    Raises:
        UserError: A file cannot be read, was edited, is contradicted, is of a run that is not
            complete, or repeats a seed; or scores are of a run's samples.
    """
    new = new or {}
    records = committed_records(leaderboards, accounts, new)
    scores = committed_scores(leaderboards, new)
    shown = [each for each in records if everything or not _is_trial(each)]
    scores_shown = [each for each in scores if everything or not _is_trial(each)]
    measurements = measurement_frame(shown, scores_shown)
    correct = {
        (record.spec.id, metric): images
        for record in shown
        for metric, images in _correct(record, leaderboards, new).items()
    }
    table = leaderboard.leaderboard(measurements, correct)
    compared = comparisons.compare(table)
    verdicts = claims.judge(records)
    alarms, spent = find_alarms(records), spent_together(records)
    texts: dict[Path, str] = {}
    if len(table):
        texts |= leaderboard.files(table, leaderboards) | comparisons.files(compared, leaderboards)
        texts |= claims.files(verdicts, alarms, leaderboards)
        texts |= overview.files(table, compared, verdicts, spent, alarms, leaderboards)
    left_out = len(records) + len(scores) - len(shown) - len(scores_shown)
    return Report(table, compared, verdicts, texts, alarms, spent, left_out)


def _correct(
    record: RunRecord, leaderboards: Path, new: Mapping[Path, bytes]
) -> dict[str, Correct]:
    file = committed_file(record, leaderboards)
    return read_correct(file, record, new.get(beside(file)))


def _is_trial(record: RunRecord | Scores) -> bool:
    void = isinstance(record, RunRecord) and record.spec.reproducible
    return void or record.spec.profile == TRIAL
