"""Two runs or two methods side by side: what differs in what they did, and in what came out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from dpbench.core.errors import UserError
from dpbench.records.run_record import RunRecord
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
        difference: First minus second, with its error; None if nothing is known of it.
    """

    metric: str
    unit: str
    higher_is_better: bool
    first: float
    second: float
    difference: MeanEstimate | None


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
    found = []
    ours, theirs = _scores(first), _scores(second)
    independent = first.independent and second.independent
    for alike, values in ours.items():
        if others := theirs.get(alike):
            difference = None
            if independent:
                on_images = _on_same_images(alike.metric, first, second)
                difference = on_images or _of_seeds(values, others)
            found.append(
                Pair(
                    alike.metric,
                    alike.unit,
                    alike.higher_is_better,
                    float(np.mean(values)),
                    float(np.mean(others)),
                    difference,
                )
            )
    return found


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


def _on_same_images(metric: str, first: Side, second: Side) -> MeanEstimate | None:
    right: dict[Key, list[Correct]] = {}
    for place, side in enumerate((first, second)):
        right[place,] = [each[metric] for each in side.correct if metric in each]
        if len(right[place,]) < len(side.records):
            return None
    drawn = resample(right)
    return estimate_difference(drawn[0,], drawn[1,])


def _of_seeds(values: Sequence[float], others: Sequence[float]) -> MeanEstimate | None:
    """The difference of two means by Welch's t; None of one seed, or if nothing varies."""
    if min(len(values), len(others)) < 2:
        return None
    ours, theirs = MeanEstimate.of(values), MeanEstimate.of(others)
    variance = ours.error**2 + theirs.error**2
    if not variance:
        return None
    spread = sum(each.error**4 / each.degrees for each in (ours, theirs))
    return MeanEstimate(ours.value - theirs.value, math.sqrt(variance), variance**2 / spread)
