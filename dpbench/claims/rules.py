"""Rules that turn the records of a claim's runs into one number per seed.

The number is oriented: values above ``null`` support the claim, values below contradict it.
``dpbench.claims.verdicts`` decides by its mean over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dpbench.claims.arms import Arm
from dpbench.claims.values import ArmValues, Metric, read_values
from dpbench.records.run_record import RunRecord


@dataclass(frozen=True)
class Evidence:
    """Evidence for or against a claim, read from records.

    Attributes:
        estimand: Description of the values.
        values: Oriented value of each seed.
        null: The value that neither supports nor contradicts the claim.
        unit: Unit of the values.
        profile: Profile of the runs that were read.
        missing: Number of the claim's runs without a record.
        records: Ids of the records that were read, 8 hex digits each.
        reason: Why there are fewer values than seeds, or why arms cannot be compared.
        comparable: Whether the runs differ only in what the claim is about.
        monotone: Whether the means are in the claimed order at every step.
    """

    estimand: str
    values: Mapping[int, float]
    null: float
    unit: str
    profile: str
    missing: int
    records: tuple[str, ...]
    reason: str = ""
    comparable: bool = True
    monotone: bool = True


class Rule(Protocol):
    """Turns records into evidence.

    Attributes:
        arms: The runs that test the claim.
        metrics: Metrics that are read from their records.
    """

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The runs that test the claim."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics that are read from their records."""

    def evidence(self, records: Sequence[RunRecord]) -> Evidence:
        """Read the values of each seed; records of other runs are ignored."""


@dataclass(frozen=True)
class Paired:
    """One arm against another, seed by seed.

    Attributes:
        arm: The arm that is claimed to be better, or no worse.
        reference: The arm that it is compared with.
        metric: Metric of the comparison.
        margin: Largest loss that counts as none, stated beforehand in units of the metric; with 0
            the arm is claimed to be better.
    """

    arm: Arm
    reference: Arm
    metric: Metric
    margin: float = 0.0

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The runs that test the claim."""
        return self.arm, self.reference

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics that are read from their records."""
        return (self.metric,)

    def evidence(self, records: Sequence[RunRecord]) -> Evidence:
        """Read the values of each seed; records of other runs are ignored."""
        found = [read_values(arm, self.metric, records) for arm in self.arms]
        ahead, behind = found
        values = {
            seed: _sign(found) * (ahead.values[seed] - behind.values[seed])
            for seed in _common(found)
        }
        what = f"improvement in {self.metric.name}"
        return _evidence(what, values, found, 0.0 - self.margin, self.arm.profile)


@dataclass(frozen=True)
class Trend:
    """Arms that are claimed to improve in order.

    The value of a seed is the least-squares slope over the arms' places, 0, 1, 2, ...

    Attributes:
        rising: The arms, from claimed worst to claimed best.
        metric: Metric of the comparison.
        references: If the claim is about gains, the arm that each one's gain is measured against.
    """

    rising: tuple[Arm, ...]
    metric: Metric
    references: tuple[Arm, ...] = ()

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The runs that test the claim."""
        return tuple(dict.fromkeys((*self.rising, *self.references)))

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics that are read from their records."""
        return (self.metric,)

    def evidence(self, records: Sequence[RunRecord]) -> Evidence:
        """Read the values of each seed; records of other runs are ignored."""
        arms = [read_values(arm, self.metric, records) for arm in self.rising]
        references = [read_values(arm, self.metric, records) for arm in self.references]
        found = [*arms, *references]
        seeds = _common(found)
        heights = _table(arms, seeds) - (_table(references, seeds) if references else 0.0)
        heights *= _sign(found)
        places = np.arange(len(arms)) - (len(arms) - 1) / 2
        slopes = (places[:, None] * heights).sum(axis=0) / (places**2).sum()
        values = {seed: float(slope) for seed, slope in zip(seeds, slopes, strict=True)}
        monotone = bool(seeds) and bool((np.diff(heights.mean(axis=1)) > 0).all())
        what = f"{'gain' if references else 'improvement'} in {self.metric.name}, a step"
        return _evidence(what, values, found, 0.0, self.rising[0].profile, monotone)


@dataclass(frozen=True)
class Reading:
    """A number that each run measures by itself.

    Attributes:
        arm: The runs that are read.
        metric: Metric that is read.
        minus: Metric that is subtracted from it, if any.
    """

    arm: Arm
    metric: Metric
    minus: Metric | None = None

    def evidence(self, records: Sequence[RunRecord], threshold: float) -> Evidence:
        """Read the number of each seed."""
        own = read_values(self.arm, self.metric, records)
        if self.minus is None:
            return _evidence(self.metric.name, own.values, [own], threshold, self.arm.profile)
        less = read_values(self.arm, self.minus, records)
        values = {seed: own.values[seed] - less.values[seed] for seed in _common([own, less])}
        # the same runs: what is missing counts once, and two metrics have conditions of their own
        both = replace(own, reason=own.reason or less.reason)
        what = f"{self.metric.name} - {self.minus.name}"
        return _evidence(what, values, [both], threshold, self.arm.profile)


@dataclass(frozen=True)
class Measured:
    """A number that each run measures by itself, compared with a threshold.

    Readings are never pooled: the one with the most seeds decides, the first of them in a tie.

    Attributes:
        reading: Reading of the runs that test the claim; higher values support it.
        threshold: Value that the number must exceed, stated beforehand.
        others: The same reading of runs of other profiles, used if they have more seeds.
    """

    reading: Reading
    threshold: float
    others: tuple[Reading, ...] = ()

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The runs that test the claim."""
        return (self.reading.arm,)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics that are read from their records."""
        return tuple(filter(None, (self.reading.metric, self.reading.minus)))

    def evidence(self, records: Sequence[RunRecord]) -> Evidence:
        """Read the values of each seed; records of other runs are ignored."""
        readings = (self.reading, *self.others)
        found = [reading.evidence(records, self.threshold) for reading in readings]
        most = max(found, key=lambda each: len(each.values))
        return replace(most, missing=found[0].missing)


@dataclass(frozen=True)
class Claim:
    """A published claim, and the rule that decides it here.

    Attributes:
        id: Unique id.
        statement: The claim, in one sentence.
        source: Paper, and place in the paper.
        published: Figures given by the source; published by others, not measured by us.
        rule: Rule by which our records decide.
        here: How our runs depart from the source.
    """

    id: str
    statement: str
    source: str
    published: str
    rule: Rule
    here: str


def _common(found: Sequence[ArmValues]) -> list[int]:
    """Seeds that have a value in every arm."""
    return sorted(set.intersection(*(set(each.values) for each in found)))


def _table(found: Sequence[ArmValues], seeds: Sequence[int]) -> NDArray[np.float64]:
    """Values of every arm, ``(arms, seeds)`` float64."""
    return np.array([[each.values[seed] for seed in seeds] for each in found], dtype=np.float64)


def _sign(found: Sequence[ArmValues]) -> int:
    """1 if higher is better, -1 if lower is; 1 if nothing was measured."""
    return next((each.sign for each in found if each.values), 1)


def _evidence(
    estimand: str,
    values: Mapping[int, float],
    found: Sequence[ArmValues],
    null: float,
    profile: str,
    monotone: bool = True,
) -> Evidence:
    reason = next((each.reason for each in found if each.reason), "")
    mixed = any(len(each.specs) > 1 for each in found)
    versions = frozenset.union(*(each.versions for each in found))
    unlike = len(frozenset.union(*(each.conditions for each in found))) > 1 or (
        len({method for method, _ in versions}) < len(versions)
    )
    dependent = not all(each.independent for each in found)
    if mixed:
        reason = "the records of an arm differ in more than their seed: remove the outdated ones"
    elif unlike:
        reason = (
            "the arms differ in data, compute, measurement or version: remove the outdated records"
        )
    elif dependent:
        reason = (
            "runs of an arm share one draw of public weights, so its seeds are no independent "
            "repetitions"
        )
    return Evidence(
        estimand=estimand,
        values=values,
        null=null,
        unit=next((each.unit for each in found if each.unit), ""),
        profile=profile,
        missing=sum(each.missing for each in found),
        records=tuple(dict.fromkeys(name for each in found for name in each.records)),
        reason=reason,
        comparable=not (mixed or unlike or dependent),
        monotone=monotone,
    )
