"""How claims are decided: from the records of their runs to one number for each seed.

The number is oriented: above ``null`` speaks for the claim, under it against it. What decides is
its mean over seeds, in ``dpbench.claims.verdicts``.
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
    """What records say of a claim.

    Attributes:
        estimand: What the values are, for people.
        values: By seed, oriented.
        null: The value that speaks neither for the claim nor against it.
        unit: Of the values.
        profile: Of the runs that were read.
        missing: Number of the claim's runs without a record.
        records: Ids of the records that were read, 8 hex digits each.
        reason: Why there are fewer values than seeds, or why they cannot be compared.
        comparable: Whether the runs differ in what the claim is about and in nothing else.
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
        metrics: What is read from their records.
    """

    @property
    def arms(self) -> tuple[Arm, ...]:
        """See the class."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """See the class."""

    def evidence(self, records: Sequence[RunRecord]) -> Evidence:
        """What records say; those of other runs are ignored."""


@dataclass(frozen=True)
class Paired:
    """One arm against another, seed by seed.

    Attributes:
        arm: What is claimed to be better, or no worse.
        reference: Than what.
        metric: By which.
        margin: How much worse still counts as no loss, stated beforehand in units of the metric; 0
            claims that the arm is better.
    """

    arm: Arm
    reference: Arm
    metric: Metric
    margin: float = 0.0

    @property
    def arms(self) -> tuple[Arm, ...]:
        """See ``Rule``."""
        return self.arm, self.reference

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """See ``Rule``."""
        return (self.metric,)

    def evidence(self, records: Sequence[RunRecord]) -> Evidence:
        """See ``Rule``."""
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
    """Arms that are claimed to get better one after the other.

    The value of a seed is the least-squares slope over the arms' places, 0, 1, 2, ...

    Attributes:
        rising: The arms, in order, the one that is claimed to be best last.
        metric: By which.
        references: What each arm's gain is over, where the claim is of gains.
    """

    rising: tuple[Arm, ...]
    metric: Metric
    references: tuple[Arm, ...] = ()

    @property
    def arms(self) -> tuple[Arm, ...]:
        """See ``Rule``."""
        return tuple(dict.fromkeys((*self.rising, *self.references)))

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """See ``Rule``."""
        return (self.metric,)

    def evidence(self, records: Sequence[RunRecord]) -> Evidence:
        """See ``Rule``."""
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
    """A number that single runs hold.

    Attributes:
        arm: Which runs.
        metric: Which number.
        minus: What is taken off it.
    """

    arm: Arm
    metric: Metric
    minus: Metric | None = None

    def evidence(self, records: Sequence[RunRecord], threshold: float) -> Evidence:
        """The number of each seed."""
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
    """A number that every run measures by itself, against a threshold.

    Readings are never pooled: that with the most seeds decides, the first of them in a tie.

    Attributes:
        reading: Of the runs that test the claim; higher speaks for it.
        threshold: What the number must be above, stated beforehand.
        others: The same number of runs of other profiles, read where there are more of them.
    """

    reading: Reading
    threshold: float
    others: tuple[Reading, ...] = ()

    @property
    def arms(self) -> tuple[Arm, ...]:
        """See ``Rule``."""
        return (self.reading.arm,)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """See ``Rule``."""
        return tuple(filter(None, (self.reading.metric, self.reading.minus)))

    def evidence(self, records: Sequence[RunRecord]) -> Evidence:
        """See ``Rule``."""
        readings = (self.reading, *self.others)
        found = [reading.evidence(records, self.threshold) for reading in readings]
        most = max(found, key=lambda each: len(each.values))
        return replace(most, missing=found[0].missing)


@dataclass(frozen=True)
class Claim:
    """What somebody published, and how it is decided here.

    Attributes:
        id: Unique.
        statement: The claim, in one sentence.
        source: Paper and place.
        published: The figures that the source gives: published by others, and not ours.
        rule: How our records decide.
        here: In what the runs depart from the source.
    """

    id: str
    statement: str
    source: str
    published: str
    rule: Rule
    here: str


def _common(found: Sequence[ArmValues]) -> list[int]:
    """The seeds that have a value in every arm."""
    return sorted(set.intersection(*(set(each.values) for each in found)))


def _table(found: Sequence[ArmValues], seeds: Sequence[int]) -> NDArray[np.float64]:
    """``(arms, seeds)``: the values of every arm."""
    return np.array([[each.values[seed] for seed in seeds] for each in found], dtype=np.float64)


def _sign(found: Sequence[ArmValues]) -> int:
    """Which way is up; any way where nothing was measured."""
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
    unlike = len(frozenset.union(*(each.conditions for each in found))) > 1
    if mixed:
        reason = "the records of an arm differ in more than their seed: remove the outdated ones"
    elif unlike:
        reason = "the arms differ in data, compute or measurement: remove the outdated records"
    return Evidence(
        estimand=estimand,
        values=values,
        null=null,
        unit=next((each.unit for each in found if each.unit), ""),
        profile=profile,
        missing=sum(each.missing for each in found),
        records=tuple(dict.fromkeys(name for each in found for name in each.records)),
        reason=reason,
        comparable=not (mixed or unlike),
        monotone=monotone,
    )
