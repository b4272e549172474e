"""How long the cells of a sweep take."""

from __future__ import annotations

import statistics
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dpbench.core.errors import UserError
from dpbench.records.run_record import RunRecord, find_records, read_record
from dpbench.runs.request import PlannedRun
from dpbench.runs.sweep.grid import Cell


class TimeEstimates:
    """How long cells take on this machine: as long as runs like them took, or as a probe tells.

    Args:
        runs_dir: Where to look for complete runs.
    """

    def __init__(self, runs_dir: Path) -> None:
        """Read what is there."""
        self._measured: dict[tuple[object, ...], list[dict[str, float]]] = {}
        self._probed: dict[tuple[object, ...], float] = {}
        for file in find_records(runs_dir):
            with suppress(UserError):  # a record that cannot be read is of no run of this sweep
                self.learn(read_record(file))

    def learn(self, record: RunRecord) -> None:
        """Take a run into account if it is complete."""
        if record.status == "complete":
            self._measured.setdefault(_work_of_record(record), []).append(record.timings)

    def of(self, cell: Cell) -> TimeEstimate:
        """What is left to do for a cell; nothing if it is complete."""
        if cell.state == "complete":
            return TimeEstimate(0.0, 0)
        work = _work(cell.planned)
        parts = {"fit", "sample", *cell.planned.evaluators}
        measured = [
            sum(timings[part] for part in parts)
            for timings in self._measured.get(work, [])
            if parts <= timings.keys()
        ]
        if measured:
            total = statistics.median(measured)
        else:
            if work not in self._probed:
                self._probed[work] = cell.planned.estimated_seconds
            total = self._probed[work]
        earlier = cell.earlier.timings if cell.earlier else {}
        spent = sum(seconds for part, seconds in earlier.items() if part in parts)
        return TimeEstimate(max(0.0, total - spent), len(measured))


def _work(planned: PlannedRun) -> tuple[object, ...]:
    """What runs that take about as long have in common."""
    training = planned.plan
    return (
        planned.request.method,
        planned.dataset.name,
        planned.profile.name,
        training.evaluations(private=True),
        training.evaluations(private=False),
        training.parameters,
        str(planned.device),
        planned.ranks.size,
    )


def _work_of_record(record: RunRecord) -> tuple[object, ...]:
    """The same of a complete run."""
    spec, cost, resolved = record.spec, record.cost, record.resolved
    return (
        spec.method,
        spec.dataset,
        spec.profile,
        cost.get("private_evaluations"),
        cost.get("public_evaluations"),
        cost.get("parameters"),
        resolved.get("device"),
        resolved.get("processes"),
    )


@dataclass(frozen=True)
class TimeEstimate:
    """How long a cell will take, or what is left of it.

    Attributes:
        seconds: Wall time, without the start of its process.
        runs: How many complete runs like it were measured; 0 where there is none, and only its
            training was estimated, from one step of each stage.
    """

    seconds: float
    runs: int
