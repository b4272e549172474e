"""Which methods differ: all pairs on the same test images, corrected for their number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

from dpbench.core.files import safe_name
from dpbench.report.leaderboard import CONFIDENCE, Row, comparable
from dpbench.report.tables import to_csv
from dpbench.stats.bootstrap import difference
from dpbench.stats.holm import holm

SUFFIX = ".comparisons"
NONE = (
    "No methods are compared: that takes two at the same data set, profile and privacy budget, "
    "each with at least 2 seeds whose records say which test images were classified rightly."
)


@dataclass(frozen=True)
class Comparison:
    """Two methods in one metric.

    Attributes:
        dataset: Name.
        profile: Name.
        epsilon: Of the budget of both.
        delta: Of the budget of both.
        adjacency: Of the budget of both.
        metric: Name.
        method_a: As in the leaderboard.
        method_b: The other.
        difference: Mean of the first over seeds, less that of the second.
        ci_low: Lower end of its 95% interval over seeds of both and test images; of this pair
            alone, not corrected.
        ci_high: Upper end.
        p_value: Two-sided, of no difference.
        adjusted_p_value: The same after Holm's correction, over all pairs of methods at the same
            data set, profile, budget and metric.
        seeds_a: Number of seeds.
        seeds_b: Of the second.
        unit: Of the metric.
        higher_is_better: Which way is up.
        n: Synthetic images.
        split: Real split.
        extractor: Id of the classifier.
        records_a: Ids of the records, 8 hex digits each.
        records_b: Of the second.
    """

    dataset: str
    profile: str
    epsilon: float | None
    delta: float | None
    adjacency: str
    metric: str
    method_a: str
    method_b: str
    difference: float
    ci_low: float
    ci_high: float
    p_value: float
    adjusted_p_value: float
    seeds_a: int
    seeds_b: int
    unit: str
    higher_is_better: bool
    n: int
    split: str
    extractor: str
    records_a: str
    records_b: str


def compare(table: Iterable[Row]) -> list[Comparison]:
    """All pairs of rows that differ in the method, with at least 2 seeds and known test images."""
    repeated = [row for row in table if row.seeds > 1]
    return [each for family in comparable(repeated) for each in _family(family)]


def files(compared: Iterable[Comparison], leaderboards: Path) -> dict[Path, str]:
    """The CSVs, one for each data set where methods are compared, and their texts."""
    parts: dict[str, list[Comparison]] = defaultdict(list)
    for each in compared:
        parts[safe_name(each.dataset) + SUFFIX].append(each)
    return {
        leaderboards / f"{name}.csv": to_csv([asdict(each) for each in part])
        for name, part in parts.items()
    }


def _family(rows: Iterable[Row]) -> list[Comparison]:
    known = [(row, row.scores) for row in rows if row.scores is not None]
    pairs = list(combinations(known, 2))
    estimates = [difference(first, second) for (_, first), (_, second) in pairs]
    adjusted = holm([estimate.p_value() for estimate in estimates])
    found = []
    for ((a, _), (b, _)), estimate, corrected in zip(pairs, estimates, adjusted, strict=True):
        low, high = estimate.interval(CONFIDENCE)
        found.append(
            Comparison(
                dataset=a.dataset,
                profile=a.profile,
                epsilon=a.epsilon,
                delta=a.delta,
                adjacency=a.adjacency,
                metric=a.metric,
                method_a=a.method,
                method_b=b.method,
                difference=estimate.value,
                ci_low=low,
                ci_high=high,
                p_value=estimate.p_value(),
                adjusted_p_value=corrected,
                seeds_a=a.seeds,
                seeds_b=b.seeds,
                unit=a.unit,
                higher_is_better=a.higher_is_better,
                n=a.n,
                split=a.split,
                extractor=a.extractor,
                records_a=a.records,
                records_b=b.records,
            )
        )
    return found
