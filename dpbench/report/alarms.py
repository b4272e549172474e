"""Audit alarms: which records have one, in a line each."""

from __future__ import annotations

from collections.abc import Iterable

from dpbench.records.alarms import count_alarms
from dpbench.records.run_record import RunRecord


def find_alarms(records: Iterable[RunRecord]) -> list[str]:
    """Say which records have an alarm.

    Returns:
        A line for each record with one.
    """
    lines = []
    for record in records:
        if count := count_alarms(record):
            spec = record.spec
            checks = "1 check refutes" if count == 1 else f"{count} checks refute"
            lines.append(
                f"AUDIT ALARM in record {spec.id[:8]} ({spec.method}, epsilon {spec.epsilon:g}, "
                f"seed {spec.seed}): {checks} its privacy claim"
            )
    return lines
