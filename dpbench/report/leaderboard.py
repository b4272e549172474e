"""Leaderboards: CSVs for each data set, derived from committed records and from nothing else."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from dpbench.core.errors import UserError
from dpbench.core.files import safe_name
from dpbench.core.metrics import Measurement
from dpbench.records import correctness
from dpbench.records.run_record import RunRecord
from dpbench.records.sample_scores import NOT_CLAIMED, Scores
from dpbench.report.collect import committed_file, committed_records, committed_scores
from dpbench.report.curves import curve_of
from dpbench.report.tables import to_csv
from dpbench.stats.bootstrap import Correct, Resampled, mean, resample
from dpbench.stats.rank_intervals import rank_intervals
from dpbench.stats.student import MeanEstimate

CONFIDENCE = 0.95
# what an interval says that others might give
SEEDS, IMAGES = "seeds", "test images"
BOTH = f"{SEEDS} and {IMAGES}"


@dataclass(frozen=True)
class Row:
    """One cell of the benchmark: a method's score in one metric, over seeds.

    Samples of unknown origin have rows too, one for each evaluation. They claim no privacy, so what
    a budget, a certificate and training would say is None.

    Attributes:
        dataset: Name.
        profile: Name.
        method: Name; with ``+name=value`` for every hyper-parameter that was set by hand; of
            samples, what they are called and that their origin is unknown.
        epsilon: Of the budget.
        delta: Of the budget.
        adjacency: Of the budget; ``""`` where there is none.
        metric: Name.
        mean: Over seeds; None where no seed has a value.
        ci_low: Lower end of the 95% interval over what ``interval`` names; None without one.
        ci_high: Upper end.
        seeds: Number of seeds with a value.
        unit: Of the metric.
        higher_is_better: Which way is up.
        n: Synthetic images.
        split: Real split.
        extractor: Id of extractor or classifier.
        reason: Why there is no value.
        accounted_epsilon: The largest over seeds, from the certificates.
        release: What the certificates say of releasing the samples.
        private_evaluations: Gradient evaluations on private images, expected.
        public_evaluations: On public images.
        fit_seconds: Mean training time.
        records: Ids of the records, 8 hex digits each.
        audited_epsilon_lower: The largest lower bound of epsilon over seeds, from audits; None
            where no seed has one.
        sigma_ratio_low: Over seeds, the smallest lower end of the interval of actual over claimed
            noise.
        sigma_ratio_high: The largest upper end.
        rank_low: The best rank, from 1, that the intervals allow among the methods that are
            comparable: all else but name and release alike. None for fewer than two seeds.
        rank_high: The worst.
        interval: What the interval is over. ``seeds and test images``: see ``report.bootstrap``.
            ``seeds``: Student's t, where it is not kept which test images were classified rightly,
            as for metrics that are no accuracy and for old records. ``test images``: of one seed,
            which says nothing of others. ``""``: there is none.
        dataset_hash: Of the data set's decoded arrays, 8 hex digits.
        scores: What the interval was computed from, if test images are in it; no column.
    """

    dataset: str
    profile: str
    method: str
    epsilon: float | None
    delta: float | None
    adjacency: str
    metric: str
    mean: float | None
    ci_low: float | None
    ci_high: float | None
    seeds: int
    unit: str
    higher_is_better: bool
    n: int
    split: str
    extractor: str
    reason: str
    accounted_epsilon: float | None
    release: str
    private_evaluations: int | None
    public_evaluations: int | None
    fit_seconds: float | None
    records: str
    audited_epsilon_lower: float | None
    sigma_ratio_low: float | None
    sigma_ratio_high: float | None
    rank_low: int | None = None
    rank_high: int | None = None
    interval: str = ""
    dataset_hash: str = ""
    scores: Resampled | None = field(default=None, repr=False, compare=False)

    def columns(self) -> dict[str, Any]:
        """The columns of a table by name."""
        return {name: getattr(self, name) for name in COLUMNS}

    @property
    def epsilon_said(self) -> str:
        """The budget's epsilon, for people."""
        return NOT_CLAIMED if self.epsilon is None else f"{self.epsilon:g}"

    @property
    def interval_said(self) -> str:
        """The interval, for people: with what it is over, unless that is all there is."""
        said = [] if self.ci_low is None else [f"{self.ci_low:.4g} to {self.ci_high:.4g}"]
        over = [f"({self.interval})"] if self.interval in (SEEDS, IMAGES) else []
        return " ".join((["1 seed"] if self.seeds == 1 else []) + said + over)


AUDIT_NOTE = (
    "Audits send canaries through a run's mechanisms. A noise interval (audit_sigma_ratio) without "
    "1 in it, or a lower bound above the accounted epsilon, refutes the claim. Their absence does "
    "not prove it: one run cannot refute epsilon = 10 even by perfect guesses, and of the method's "
    "own training an audit sees the noise and the clipping of one image only."
)
INTERVAL_NOTE = (
    "Intervals of one seed are over test images alone: another seed may well be outside. Where "
    f'others are marked "{SEEDS}" they hold for these test images and no others.'
)
COLUMNS = tuple(column.name for column in fields(Row) if column.name != "scores")


def rows(leaderboards: Path) -> list[Row]:
    """All rows, from the committed records and scores.

    Raises:
        UserError: One of them cannot be read, is of a run that is not complete, or is scores of a
            run's samples.
    """
    groups: dict[tuple[object, ...], list[tuple[RunRecord, Measurement]]] = defaultdict(list)
    known: dict[tuple[object, ...], list[Correct]] = defaultdict(list)
    for record in committed_records(leaderboards):
        correct = correctness.read_correct(committed_file(record, leaderboards), record)
        for measurement in record.measurements:
            cell = _cell(record, measurement)
            groups[cell].append((record, measurement))
            if measurement.metric in correct:
                known[cell].append(correct[measurement.metric])
    # old records may stand beside new ones: some of the seeds alone would have another mean
    whole = {cell: right for cell, right in known.items() if len(right) == _values(groups[cell])}
    resampled = resample(whole)
    found = [_row(group, resampled.get(cell)) for cell, group in groups.items()]
    for scores in committed_scores(leaderboards):
        found += [_row_of_samples(scores, measurement) for measurement in scores.measurements]
    return sorted(_ranked(found), key=_order)


def _ranked(table: Iterable[Row]) -> Iterator[Row]:
    """The rows, with the ranks that their intervals allow."""
    for group in comparable(table):
        # a seed that was lucky is no winner
        intervals = [(row.ci_low, row.ci_high) if row.seeds > 1 else (None, None) for row in group]
        ranks = rank_intervals(intervals, group[0].higher_is_better)
        for row, (low, high) in zip(group, ranks, strict=True):
            yield replace(row, rank_low=low, rank_high=high)


def comparable(table: Iterable[Row]) -> list[list[Row]]:
    """Rows that differ in the method: the same data, profile, budget and way to measure."""
    groups: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in table:
        budget = (row.epsilon, row.delta, row.adjacency)
        measured = (row.metric, row.split, row.extractor, row.n)
        data = (row.dataset, row.dataset_hash)
        groups[(*data, row.profile, *budget, *measured)].append(row)
    return list(groups.values())


def files(table: Iterable[Row], leaderboards: Path) -> dict[Path, str]:
    """The text of a CSV per data set, and of one for the points of each curve, by path."""
    parts: dict[str, list[Row]] = defaultdict(list)
    for row in table:
        curve = curve_of(row.metric)
        parts[safe_name(row.dataset) + (curve.suffix if curve else "")].append(row)
    return {
        leaderboards / f"{name}.csv": to_csv([row.columns() for row in part])
        for name, part in parts.items()
    }


def method_label(record: RunRecord) -> str:
    """The method's name, with what was set by hand: such a run is a row of its own."""
    by_hand = sorted(record.resolved.get("by_hand", []))
    return record.spec.method + "".join(
        f"+{name}={record.spec.method_args[name]}" for name in by_hand
    )


def _cell(record: RunRecord, measurement: Measurement) -> tuple[object, ...]:
    """What must agree for two measurements to be repetitions of each other."""
    return (
        replace(record.spec, seed=0).id,
        method_label(record),
        measurement.metric,
        measurement.split,
        measurement.extractor,
        measurement.n,
    )


def _values(group: list[tuple[RunRecord, Measurement]]) -> int:
    return sum(measurement.value is not None for _, measurement in group)


def _row(group: list[tuple[RunRecord, Measurement]], scores: Resampled | None) -> Row:
    record, measurement = group[0]
    spec = record.spec
    seeds = [each.spec.seed for each, _ in group]
    if len(set(seeds)) < len(seeds):
        ids = ", ".join(each.spec.id[:8] for each, _ in group)
        raise UserError(f"records {ids} repeat a seed of {spec.method} on {spec.dataset}")
    values = [m.value for _, m in group if m.value is not None]
    low, high, interval = _interval(values, scores)
    return Row(
        dataset=spec.dataset,
        profile=spec.profile,
        method=method_label(record),
        epsilon=spec.epsilon,
        delta=spec.delta,
        adjacency=spec.adjacency,
        metric=measurement.metric,
        mean=statistics.fmean(values) if values else None,
        ci_low=low,
        ci_high=high,
        seeds=len(values),
        unit=measurement.unit,
        higher_is_better=measurement.higher_is_better,
        n=measurement.n,
        split=measurement.split,
        extractor=measurement.extractor,
        reason="" if values else measurement.reason,
        accounted_epsilon=max(float(each.privacy["epsilon"]) for each, _ in group),
        release=record.privacy["release"],
        private_evaluations=record.cost["private_evaluations"],
        public_evaluations=record.cost["public_evaluations"],
        fit_seconds=statistics.fmean(each.timings["fit"] for each, _ in group),
        records=" ".join(each.spec.id[:8] for each, _ in group),
        audited_epsilon_lower=max(_audited(group, "audit_epsilon_lower"), default=None),
        sigma_ratio_low=min(_audited(group, "audit_sigma_ratio_low"), default=None),
        sigma_ratio_high=max(_audited(group, "audit_sigma_ratio_high"), default=None),
        interval=interval,
        dataset_hash=spec.dataset_hash[:8],
        scores=scores,
    )


def _row_of_samples(scores: Scores, measurement: Measurement) -> Row:
    spec = scores.spec
    return Row(
        dataset=spec.dataset,
        profile=spec.profile,
        method=f"{spec.name} (unknown origin)",
        epsilon=None,
        delta=None,
        adjacency="",
        metric=measurement.metric,
        mean=measurement.value,
        ci_low=None,
        ci_high=None,
        seeds=0 if measurement.value is None else 1,
        unit=measurement.unit,
        higher_is_better=measurement.higher_is_better,
        n=measurement.n,
        split=measurement.split,
        extractor=measurement.extractor,
        reason=measurement.reason,
        accounted_epsilon=None,
        release=NOT_CLAIMED,
        private_evaluations=None,
        public_evaluations=None,
        fit_seconds=None,
        records=spec.id[:8],
        audited_epsilon_lower=None,
        sigma_ratio_low=None,
        sigma_ratio_high=None,
        dataset_hash=spec.dataset_hash[:8],
    )


def _audited(group: list[tuple[RunRecord, Measurement]], metric: str) -> list[float]:
    """What the audits of a group's runs gave."""
    return [
        found.value
        for record, _ in group
        for found in record.measurements
        if found.metric == metric and found.value is not None
    ]


def _interval(
    values: Sequence[float], scores: Resampled | None
) -> tuple[float | None, float | None, str]:
    """Both ends, and what the interval is over."""
    if scores is not None:
        low, high = mean(scores).interval(CONFIDENCE)
        return low, high, BOTH if len(values) > 1 else IMAGES
    if len(values) < 2:
        return None, None, ""
    return *MeanEstimate.of(values).interval(CONFIDENCE), SEEDS


def _order(row: Row) -> tuple[object, ...]:
    # what claims no privacy stands behind all budgets, even none
    budget = (1, 0.0) if row.epsilon is None else (0, -row.epsilon)
    return (row.dataset, row.profile, budget, row.metric, row.split, row.method, row.records)
