"""How long runs take on this machine: as long as runs like them took, or as probes tell."""

from __future__ import annotations

import statistics
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dpbench.core.errors import UserError
from dpbench.records.run_record import RunRecord, find_records, read_record
from dpbench.runs.folder import SAMPLES
from dpbench.runs.request import PlannedRun

# the parts of a run whose time depends on its method, as records name them
TRAINING, SAMPLING = "fit", "sample"


@dataclass(frozen=True)
class TimeEstimate:
    """How long a run will take, or what is left of it.

    Attributes:
        parts: Seconds of each part, by its name in records; an evaluator of which nothing is known
            is not among them.
        runs: How many complete runs with the same training were measured; 0 where its training and
            sampling were estimated, from one step of each stage and a few images.
    """

    parts: dict[str, float]
    runs: int

    @property
    def seconds(self) -> float:
        """Wall time, without the start of the process."""
        return sum(self.parts.values())

    @property
    def evaluation(self) -> float:
        """Wall time of the evaluators."""
        return sum(time for part, time in self.parts.items() if part not in (TRAINING, SAMPLING))


class TimeEstimates:
    """Estimates the time of runs.

    Args:
        runs_dir: Where to look for complete runs.
    """

    def __init__(self, runs_dir: Path) -> None:
        """Read what is there."""
        self._trained: dict[tuple[object, ...], list[dict[str, float]]] = {}
        self._evaluated: dict[tuple[object, ...], list[dict[str, float]]] = {}
        self._probed: dict[tuple[object, ...], dict[str, float]] = {}
        for file in find_records(runs_dir):
            with suppress(UserError):  # a record that cannot be read is of no run of this machine
                self.learn(read_record(file))

    def learn(self, record: RunRecord) -> None:
        """Take a run into account if it is complete."""
        if record.status == "complete":
            self._trained.setdefault(_trained_as(record), []).append(record.timings)
            if SAMPLES in record.artifacts:  # without, evaluators had nothing to do
                self._evaluated.setdefault(_evaluated_as(record), []).append(record.timings)

    def of(self, planned: PlannedRun, earlier: RunRecord | None = None) -> TimeEstimate:
        """What is left to do for a run; nothing if it is complete.

        Args:
            planned: The run.
            earlier: Its record as far as it came.
        """
        if earlier and planned.completed(earlier):
            return TimeEstimate({}, 0)
        spent = earlier.timings if earlier else {}
        training, runs = self._training(planned)
        parts = training | self._evaluation(planned)
        left = {part: max(0.0, time - spent.get(part, 0.0)) for part, time in parts.items()}
        return TimeEstimate(left, runs)

    def _training(self, planned: PlannedRun) -> tuple[dict[str, float], int]:
        """Seconds of training and sampling, and the number of runs that tell."""
        work, parts = _trains_as(planned), (TRAINING, SAMPLING)
        measured = [each for each in self._trained.get(work, []) if {*parts} <= each.keys()]
        if measured:
            return {p: statistics.median(t[p] for t in measured) for p in parts}, len(measured)
        if work not in self._probed:
            probed = (planned.training_seconds, planned.sampling_seconds)
            self._probed[work] = dict(zip(parts, probed, strict=True))
        return self._probed[work], 0

    def _evaluation(self, planned: PlannedRun) -> dict[str, float]:
        """Seconds of each evaluator."""
        measured = self._evaluated.get(_evaluates_as(planned), [])
        usual, found = planned.profile.evaluation.seconds, {}
        for name in planned.evaluators:
            if times := [timings[name] for timings in measured if name in timings]:
                found[name] = statistics.median(times)
            elif usual is not None:
                found[name] = usual
        return found


def _trains_as(planned: PlannedRun) -> tuple[object, ...]:
    """What runs whose training and sampling take about as long have in common."""
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


def _trained_as(record: RunRecord) -> tuple[object, ...]:
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


def _evaluates_as(planned: PlannedRun) -> tuple[object, ...]:
    """What runs whose evaluators take about as long have in common."""
    return (planned.dataset.name, planned.profile.name, str(planned.device))


def _evaluated_as(record: RunRecord) -> tuple[object, ...]:
    """The same of a complete run."""
    return (record.spec.dataset, record.spec.profile, record.resolved.get("device"))
