"""Two runs or two methods side by side: what differs in what they did, and in what came out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from dpbench.core.errors import UserError
from dpbench.records.run_record import RunRecord
from dpbench.report.leaderboard import CONFIDENCE
from dpbench.report.metrics import kind_of
from dpbench.stats.bootstrap import Correct, Key, estimate_difference, resample
from dpbench.stats.student import MeanEstimate

# parts of a specification that differ between the seeds of a method, or say nothing by themselves
_NO_CHOICE = ("seed", "method_args", "compute", "schema_version")


@dataclass(frozen=True)
class Side:
    """Runs that differ in their seeds alone.

    Attributes:
        records: Of the runs, at least one.
        correct: For each run, by metric, which test images were classified rightly.
    """

    records: Sequence[RunRecord]
    correct: Sequence[Mapping[str, Correct]]

    @property
    def independent(self) -> bool:
        """Whether seeds repeat the whole method, or there is one."""
        return len(self.records) == 1 or all(each.own_public_weights for each in self.records)


@dataclass(frozen=True)
class Pair:
    """One metric of both sides.

    Attributes:
        metric: Its name.
        unit: Its unit.
        higher_is_better: Its direction.
        first: Mean over the first side's seeds.
        second: Mean over the second's.
        interval: That of first minus second; None if nothing is known of its noise.
    """

    metric: str
    unit: str
    higher_is_better: bool
    first: float
    second: float
    interval: tuple[float, float] | None


def check_comparable(first: Side, second: Side) -> None:
    """Check that the numbers of two sides may be read side by side.

    Raises:
        UserError: They are of other data, another profile or other numbers of samples.
    """
    a, b = first.records[0].spec, second.records[0].spec
    for name, words in (
        ("dataset_hash", "images"),
        ("profile", "profile"),
        ("samples", "number of samples"),
    ):
        if getattr(a, name) != getattr(b, name):
            raise UserError(
                f"{a.method} on {a.dataset} and {b.method} on {b.dataset} differ in {words} "
                f"({getattr(a, name)} and {getattr(b, name)}): compare runs of one protocol"
            )


def differing(first: Side, second: Side) -> dict[str, tuple[Any, Any]]:
    """What differs in the specifications, by name; None where a side has no such thing."""
    a, b = (_choices(side.records[0]) for side in (first, second))
    names = dict.fromkeys([*a, *b])
    return {name: (a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name)}


def pairs(first: Side, second: Side) -> list[Pair]:
    """The scores that both sides have, measured alike, in the order of the first's records.

    Where it is known which test images were classified rightly, both sides are compared on the same
    ones, whatever the number of seeds: of one seed each, the error leaves out how seeds vary.
    Other scores take two seeds of each side. Of seeds that started from one draw of public weights
    no error is known, since they vary less than the method does.
    """
    ours, theirs = _scores(first), _scores(second)
    shared = [alike for alike in ours if alike in theirs]
    noise: dict[_Alike, MeanEstimate] = {}
    if first.independent and second.independent:
        noise = _of_seeds(ours, theirs) | _on_same_images(first, second, shared)
    return [
        Pair(
            alike.metric,
            alike.unit,
            alike.higher_is_better,
            float(np.mean(ours[alike])),
            float(np.mean(theirs[alike])),
            noise[alike].interval(CONFIDENCE) if alike in noise else None,
        )
        for alike in shared
    ]


class _Alike(NamedTuple):
    """All that makes scores comparable."""

    metric: str
    unit: str
    higher_is_better: bool
    split: str
    extractor: str
    n: int
    version: str


def _choices(record: RunRecord) -> dict[str, Any]:
    spec = {k: v for k, v in asdict(record.spec).items() if k not in _NO_CHOICE}
    return spec | dict(record.spec.method_args)


def _scores(side: Side) -> dict[_Alike, list[float]]:
    """Scores against test images, of every seed."""
    found: dict[_Alike, list[float]] = {}
    for record in side.records:
        for each in record.measurements:
            kind = each.kind or kind_of(each.metric)
            if each.value is not None and kind == "score" and each.split in ("test", ""):
                alike = _Alike(*(getattr(each, name) for name in _Alike._fields))
                found.setdefault(alike, []).append(float(each.value))
    return {alike: values for alike, values in found.items() if len(values) == len(side.records)}


def _on_same_images(
    first: Side, second: Side, shared: Sequence[_Alike]
) -> dict[_Alike, MeanEstimate]:
    """Differences of what is known, of all seeds, to be right on which test images."""
    right: dict[Key, list[Correct]] = {}
    known = []
    for alike in shared:
        sides = [
            [each[alike.metric] for each in side.correct if alike.metric in each]
            for side in (first, second)
        ]
        if [len(each) for each in sides] == [len(first.records), len(second.records)]:
            known.append(alike)
            right |= {(place, alike.metric): each for place, each in enumerate(sides)}
    drawn = resample(right)
    return {
        alike: estimate_difference(drawn[0, alike.metric], drawn[1, alike.metric])
        for alike in known
    }


def _of_seeds(
    ours: Mapping[_Alike, Sequence[float]], theirs: Mapping[_Alike, Sequence[float]]
) -> dict[_Alike, MeanEstimate]:
    """Differences of two means by Welch's t; none of one seed, or where nothing varies."""
    found = {}
    for alike in ours.keys() & theirs.keys():
        if min(len(ours[alike]), len(theirs[alike])) > 1:
            a, b = MeanEstimate.of(ours[alike]), MeanEstimate.of(theirs[alike])
            if variance := a.error**2 + b.error**2:
                spread = sum(each.error**4 / each.degrees for each in (a, b))
                degrees = variance**2 / spread
                found[alike] = MeanEstimate(a.value - b.value, math.sqrt(variance), degrees)
    return found
