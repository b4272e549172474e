"""Everything that is derived from the committed records: tables, verdicts and the files of both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dpbench.claims.verdicts import ClaimVerdict
from dpbench.records.correctness import read_correct
from dpbench.records.frame import measurement_frame
from dpbench.report import claims, comparisons, leaderboard, overview
from dpbench.report.collect import committed_file, committed_records, committed_scores


@dataclass(frozen=True)
class Report:
    """What the committed records and scores give.

    Attributes:
        table: The leaderboard, see ``leaderboard.COLUMNS``; without rows if there are no records.
        compared: The comparisons of methods, see ``comparisons.COLUMNS``.
        verdicts: On the published claims.
        texts: Contents of all CSVs and pages by path; none without rows.
    """

    table: pd.DataFrame
    compared: pd.DataFrame
    verdicts: list[ClaimVerdict]
    texts: dict[Path, str]


def derive(leaderboards: Path) -> Report:
    """Derive tables and pages from the records and scores below ``leaderboards``.

    Raises:
        UserError: A file cannot be read, was edited, is of a run that is not complete, or repeats a
            seed; or scores are of a run's samples.
    """
    records = committed_records(leaderboards)
    measurements = measurement_frame(records, committed_scores(leaderboards))
    correct = {
        (record.spec.id, metric): images
        for record in records
        for metric, images in read_correct(committed_file(record, leaderboards), record).items()
    }
    table = leaderboard.leaderboard(measurements, correct)
    compared = comparisons.compare(table)
    verdicts = claims.judge(records)
    texts: dict[Path, str] = {}
    if len(table):
        texts |= leaderboard.files(table, leaderboards) | comparisons.files(compared, leaderboards)
        texts |= claims.files(verdicts, leaderboards)
        texts |= overview.files(table, compared, verdicts, leaderboards)
    return Report(table, compared, verdicts, texts)
