"""The leaderboard: every method's score in every metric, over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.typing import DataFrameGroupBy

from dpbench.core.errors import UserError
from dpbench.core.files import safe_name
from dpbench.records.alarms import ALARMS
from dpbench.report.datasets import distinct_names
from dpbench.report.gaps import find_gaps
from dpbench.report.metrics import (
    AUDIT_CEILING,
    AUDIT_EPSILON,
    AUDIT_NOISE_HIGH,
    AUDIT_NOISE_LOW,
    curve_of,
    kind_of,
    range_of,
)
from dpbench.report.tables import GIVEN, IMAGES, SEEDS, to_csv
from dpbench.stats.bootstrap import Correct, Resampled, estimate_mean, resample
from dpbench.stats.rank_intervals import rank_intervals
from dpbench.stats.student import MeanEstimate

CONFIDENCE = 0.95
BOTH = f"{SEEDS} and {IMAGES}"
COLUMNS = {
    "dataset": "Name of the data set; with its hash where sets of other contents have that name.",
    "profile": "Name of the profile.",
    "method": "Name; with +name=value for every hyper-parameter that was set by hand. Samples of "
    "unknown origin have the name they were given.",
    "epsilon": "The privacy budget's epsilon; empty for samples of unknown origin, as is all else "
    "that a budget, a certificate and training would say.",
    "delta": "The privacy budget's delta.",
    "adjacency": "Which data sets are neighbours.",
    "metric": "Name of the metric.",
    "mean": "Mean over seeds; empty if no seed has a value.",
    "ci_low": "Lower end of the 95% interval over what the column interval names.",
    "ci_high": "Upper end.",
    "seeds": "Number of seeds with a value.",
    "unit": "Unit of the metric.",
    "higher_is_better": "Direction of the metric.",
    "n": "Number of synthetic images.",
    "split": "Split of the real images: train, validation, test, or empty.",
    "extractor": "Id of the feature extractor or classifier.",
    "reason": "Why there is no value, or none for the seeds that are missing.",
    "accounted_epsilon": "Largest epsilon of the certificates.",
    "release": "What the certificates say about releasing the samples.",
    "private_evaluations": "Gradient evaluations on private images, expected.",
    "public_evaluations": "Gradient evaluations on public images.",
    "fit_seconds": "Mean training time, in seconds.",
    "records": "Ids of the records, 8 hex digits each.",
    "audited_epsilon_lower": "Largest lower bound of epsilon that audits of the runs found.",
    "sigma_ratio_low": "Smallest lower end of their intervals of actual over claimed noise.",
    "sigma_ratio_high": "Largest upper end.",
    "rank_low": "Best rank, from 1, that the intervals allow among comparable methods: those alike "
    "in all but the method. Empty for fewer than two seeds and for what is no score.",
    "rank_high": "Worst rank.",
    "interval": "'seeds and test images': bootstrap. 'seeds': Student's t, for metrics that are no "
    "accuracy and records that do not keep which test images were classified correctly. 'test "
    "images': of one seed, which says nothing about others. 'given shared public weights': seeds"
    " that start from one draw are no repetitions of the whole method. Empty: there is none, "
    "as of one seed or of values that are all the same.",
    "dataset_hash": "SHA-256 of the data set's decoded arrays, 8 hex digits.",
    "kind": "What the metric is good for: score, diagnostic, bound or reference. Only scores are "
    "ranked and compared.",
    "missing": "Number of the method's seeds without a value here.",
    "method_version": "Version of the method's code.",
    "evaluator_version": "Version of the evaluator; empty for runs before evaluators had one.",
    "revisions": "Number of revisions of the code that made the records.",
    "departures": "What runs of a published method have that its paper has not; departures in size "
    "are not among it.",
    "audit_alarms": "Number of alarms that audits of the runs raised: checks that refute a claim.",
    "audited_epsilon_ceiling": "Smallest value that the audits' lower bound could at best have "
    "had; empty where the audits did not say.",
}
AUDIT_NOTE = (
    "Audits send canaries through a run's mechanisms. A noise interval (audit_sigma_ratio) without "
    "1 in it, or a lower bound above the accounted epsilon, refutes the claim. Their absence does "
    "not prove it: one run cannot refute epsilon = 10 even by perfect guesses, and of the method's "
    "own training an audit sees the noise and the clipping of one image only."
)
INTERVAL_NOTE = (
    "Intervals of one seed are over test images alone: another seed may well be outside. Where "
    f'others are marked "{SEEDS}" they hold for these test images and no others. Those "given '
    'shared public weights" are over private training alone, since all seeds started from one '
    "draw of them; such rows are compared with no other method."
)
# measurements that agree in these are repetitions of each other
_REPEATED = ["repetition", "label", "metric", "split", "extractor", "n", "evaluator_version"]
# rows that agree in these differ in the method alone
_COMPARABLE = [
    *("dataset", "dataset_hash", "profile", "epsilon", "delta", "adjacency"),
    *("metric", "split", "extractor", "n", "evaluator_version", "release"),
]
# the same for all repetitions
_SHARED = [
    *("dataset", "profile", "epsilon", "delta", "adjacency", "unit", "higher_is_better"),
    *("release", "private_evaluations", "public_evaluations", "dataset_hash", "kind"),
    *("method_version", "departures"),
]
_ORDER = ["dataset", "profile", "spent", "metric", "split", "method", "records"]

# by id of the record and metric: which test images were classified correctly
CorrectImages = Mapping[tuple[str, str], Correct]


def leaderboard(measurements: pd.DataFrame, correct: CorrectImages) -> pd.DataFrame:
    """Summarise measurements over seeds.

    Args:
        measurements: From ``measurement_frame``.
        correct: Which test images were classified correctly, for the records that keep it.

    Returns:
        One row for each method, metric and way to measure it, with the columns ``COLUMNS`` and
        ``resampled``: the ``Resampled`` that its interval is from, or None.

    Raises:
        UserError: Two repetitions have the same seed.
    """
    measured = measurements[measurements["metric"] != ""]
    if measured.empty:
        return pd.DataFrame(columns=[*COLUMNS, "resampled"])
    pairs = [*zip(measured["dataset"], measured["dataset_hash"], strict=True)]
    names = distinct_names(pairs)
    measured = measured.assign(
        dataset=[names[pair] for pair in pairs],
        audited_epsilon_lower=_audited(measured, AUDIT_EPSILON, "max"),
        sigma_ratio_low=_audited(measured, AUDIT_NOISE_LOW, "min"),
        sigma_ratio_high=_audited(measured, AUDIT_NOISE_HIGH, "max"),
        audited_epsilon_ceiling=_audited(measured, AUDIT_CEILING, "min"),
        kind=measured["kind"].where(measured["kind"] != "", measured["metric"].map(kind_of)),
        audit_alarms=_audited(measured, ALARMS, "max"),
        evaluator_version=measured["version"],
        dataset_hash=measured["dataset_hash"].str[:8],
        record=measured["id"].str[:8],
    )
    _refuse_repeated_seeds(measured)
    groups = measured.groupby(_REPEATED, sort=False)
    values = groups["value"].agg(_present)
    table = (
        groups[_SHARED]
        .first()
        .assign(
            mean=values.map(lambda each: statistics.fmean(each) if each else None).astype(
                "float64"
            ),
            seeds=values.map(len),
            accounted_epsilon=groups["accounted_epsilon"].max(),
            fit_seconds=groups["fit_seconds"].agg(statistics.fmean),
            records=groups["record"].agg(" ".join),
            audited_epsilon_lower=groups["audited_epsilon_lower"].max(),
            sigma_ratio_low=groups["sigma_ratio_low"].min(),
            sigma_ratio_high=groups["sigma_ratio_high"].max(),
            audited_epsilon_ceiling=groups["audited_epsilon_ceiling"].min(),
            audit_alarms=groups["audit_alarms"].sum(min_count=1).astype("Int64"),
            revisions=groups["revision"].nunique(),
            shared=~groups["own_public_weights"].all(),
        )
        .join(find_gaps(measured, _REPEATED), how="inner")
    )
    table["resampled"] = _resampled(groups["id"].agg(list)[table.index], values, correct)
    table = _with_intervals(table, values)
    table = _with_ranks(table.reset_index().rename(columns={"label": "method"}))
    # what claims no privacy stands behind all budgets, even none
    table = table.assign(spent=-table["epsilon"]).sort_values(_ORDER, kind="stable")
    return table[[*COLUMNS, "resampled"]].reset_index(drop=True)


def comparable(table: pd.DataFrame) -> DataFrameGroupBy[Any, Any]:
    """Group rows that differ in the method: same data, profile, budget and way to measure."""
    return table.groupby(_COMPARABLE, sort=False, dropna=False)


def files(table: pd.DataFrame, leaderboards: Path) -> dict[Path, str]:
    """Texts of a CSV per data set, and of one per data set and curve for the points of curves."""
    curves = table["metric"].map(curve_of)
    names = table["dataset"].map(safe_name) + curves.map(lambda each: each.suffix if each else "")
    return {
        leaderboards / f"{name}.csv": to_csv(part[list(COLUMNS)])
        for name, part in table.groupby(names, sort=False)
    }


def _audited(measured: pd.DataFrame, metric: str, extreme: str) -> pd.Series:
    """For each row, the largest or smallest value that audits of its run found."""
    found = measured[measured["metric"] == metric].groupby("id")["value"].agg(extreme)
    return measured["id"].map(found)


def _refuse_repeated_seeds(measured: pd.DataFrame) -> None:
    again = measured[measured.duplicated([*_REPEATED, "seed"])]
    if len(again):
        one = again.iloc[0]
        same = (measured[_REPEATED] == one[_REPEATED]).all(axis=1)
        ids = ", ".join(measured.loc[same, "record"])
        raise UserError(f"records {ids} repeat a seed of {one.method} on {one.dataset}")


def _present(values: pd.Series) -> list[float]:
    return [value for value in values.tolist() if not math.isnan(value)]


def _resampled(ids: pd.Series, values: pd.Series, correct: CorrectImages) -> pd.Series:
    """Resample the test images of the groups in which every value comes with them.

    Args:
        ids: The records of each group.
        values: The values of each group.
        correct: As in ``leaderboard``.

    Returns:
        A ``Resampled`` for each group, or None.
    """
    # n as an int: the bootstrap's draws depend on how a key is printed
    n = _REPEATED.index("n")
    keys = [(*key[:n], int(key[n]), *key[n + 1 :]) for key in ids.index]
    known = {}
    for key, group, present in zip(keys, ids, values[ids.index], strict=True):
        metric = key[_REPEATED.index("metric")]
        kept = [correct[each, metric] for each in group if (each, metric) in correct]
        # old records may stand beside new ones: some of the seeds alone would have another mean
        if kept and len(kept) == len(present):
            known[key] = kept
    resampled = resample(known)
    return pd.Series([resampled.get(key) for key in keys], ids.index, dtype=object)


def _with_intervals(table: pd.DataFrame, values: pd.Series) -> pd.DataFrame:
    """Intervals end where the metric's range does, in which the true mean lies for certain."""
    rows = zip(table.index, values[table.index], table["resampled"], table["unit"], strict=True)
    intervals = []
    for key, present, resampled, unit in rows:
        low, high, over = _interval(present, resampled)
        if low is not None and high is not None:
            least, most = range_of(key[_REPEATED.index("metric")], unit, present)
            low, high = max(low, least), min(high, most)
            # ends have six digits: rounded, they may meet or leave out the mean
            if not low < statistics.fmean(present) < high:
                low, high, over = None, None, ""
        intervals.append((low, high, over))
    lows, highs, overs = zip(*intervals, strict=True)
    ends = pd.DataFrame({"ci_low": lows, "ci_high": highs}, table.index, dtype="float64")
    several = table["shared"] & (table["seeds"] > 1)
    named = [
        each + GIVEN if each and shared else each
        for each, shared in zip(overs, several, strict=True)
    ]
    return table.join(ends).assign(interval=named)


def _interval(
    values: Sequence[float], resampled: Resampled | None
) -> tuple[float | None, float | None, str]:
    """Both ends of an interval, and what it is over."""
    if len(values) > 1 and min(values) == max(values):
        return None, None, ""  # a constant, which says nothing of other seeds
    if resampled is not None:
        estimate, over = estimate_mean(resampled), BOTH if len(values) > 1 else IMAGES
    elif len(values) > 1:
        estimate, over = MeanEstimate.of(values), SEEDS
    else:
        return None, None, ""
    if not estimate.varies:  # an interval of one point would state the mean with certainty
        return None, None, ""
    return *estimate.interval(CONFIDENCE), over


def _with_ranks(table: pd.DataFrame) -> pd.DataFrame:
    # a seed that was lucky is no winner
    repeated = table[(table["kind"] == "score") & (table["seeds"] > 1) & table["ci_low"].notna()]
    ranks: dict[int, tuple[int, int]] = {}
    for _, group in comparable(repeated):
        intervals = list(zip(group["ci_low"], group["ci_high"], strict=True))
        found = rank_intervals(intervals, group["higher_is_better"].iloc[0])
        ranks.update(zip(group.index, found, strict=True))
    ends = pd.DataFrame(list(ranks.values()), list(ranks), ["rank_low", "rank_high"], "Int64")
    return table.join(ends)
