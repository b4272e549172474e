"""The audit alarms of a run: checks that refute its privacy claim."""

from __future__ import annotations

from dpbench.records.run_record import RunRecord

ALARMS = "audit_alarms"  # the metric of the canary audit that counts confirmed alarms


def count_alarms(record: RunRecord) -> int:
    """The number of checks that refute the record's claim, by the audit of its run."""
    found = [each.value for each in record.measurements if each.metric == ALARMS]
    return sum(int(value) for value in found if value)
