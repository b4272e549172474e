"""Values of one metric over the seeds of an arm."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from dpbench.claims.arms import Arm
from dpbench.core.metrics import Measurement
from dpbench.records.run_record import RunRecord


@dataclass(frozen=True)
class Metric:
    """A metric to read from records.

    Attributes:
        name: Name of the metric.
        evaluator: CLI name of the evaluator that measures it.
        split: Real split of the measurement.
    """

    name: str
    evaluator: str
    split: str = "test"

    def of(self, record: RunRecord) -> Measurement | None:
        """Return the measurement in a record, or None."""
        for measurement in record.measurements:
            if (measurement.metric, measurement.split) == (self.name, self.split):
                return measurement
        return None


@dataclass(frozen=True)
class ArmValues:
    """Values of one metric over the seeds of an arm.

    Attributes:
        values: Measured value of each seed.
        sign: 1 if higher is better, -1 if lower is.
        unit: Unit of the metric.
        missing: Number of runs without a record.
        records: Ids of the records, 8 hex digits each.
        specs: Ids of the specifications without their seeds; more than one if the runs differ.
        conditions: Data, compute and measurement, which must agree between compared arms.
        versions: Methods with their versions; a method that is compared with itself must have one.
        independent: Whether the public weights of every run, if it has any, are its seed's own.
        reason: Why a complete run has no value; ``""`` if all have one.
    """

    values: Mapping[int, float]
    sign: int
    unit: str
    missing: int
    records: tuple[str, ...]
    specs: frozenset[str]
    conditions: frozenset[str]
    versions: frozenset[tuple[str, str]]
    independent: bool
    reason: str


def read_values(arm: Arm, metric: Metric, records: Iterable[RunRecord]) -> ArmValues:
    """Read a metric of an arm from the records of its runs; others are ignored.

    Where an arm has records of several schema versions, those of the latest alone count: they say
    more about how they were made.
    """
    own = sorted((each for each in records if arm.has(each)), key=lambda each: each.spec.seed)
    latest = max((each.spec.schema_version for each in own), default=0)
    own = [each for each in own if each.spec.schema_version == latest]
    values: dict[int, float] = {}
    sign, unit, reason = 1, "", ""
    conditions = set()
    for record in own:
        spec, found = record.spec, metric.of(record)
        if found is None:
            reason = f"{metric.name} was not measured"
            continue
        if found.value is None:
            reason = f"no {metric.name}: {found.reason}"
            continue
        values[spec.seed] = found.value
        sign, unit = (1 if found.higher_is_better else -1), found.unit
        made = (
            spec.dataset_hash,
            spec.compute,
            spec.samples,
            found.n,
            found.extractor,
            found.version,
        )
        conditions.add(json.dumps(made, sort_keys=True))
    return ArmValues(
        values=values,
        sign=sign,
        unit=unit,
        missing=len(set(arm.seeds) - {each.spec.seed for each in own}),
        records=tuple(each.spec.id[:8] for each in own),
        specs=frozenset(replace(each.spec, seed=0).id for each in own),
        conditions=frozenset(conditions),
        versions=frozenset((each.spec.method, each.spec.method_version) for each in own),
        independent=all(each.own_public_weights for each in own),
        reason=reason,
    )
