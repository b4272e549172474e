"""Which methods differ: all pairs on the same test images, corrected for their number."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from dpbench.core.files import safe_name
from dpbench.report.leaderboard import CONFIDENCE, comparable
from dpbench.report.tables import GIVEN, to_csv
from dpbench.stats.bootstrap import estimate_difference
from dpbench.stats.holm import adjust_by_holm

SUFFIX = ".comparisons"
FARTHEST = 100.0  # what is compared are accuracies in %, and no two differ by more
NONE = (
    "No methods are compared: that takes two at the same data set, profile and privacy budget, "
    "each with at least 2 seeds whose records say which test images were classified rightly."
)
COLUMNS = {
    "dataset": "Name of the data set.",
    "profile": "Name of the profile.",
    "epsilon": "Epsilon of the privacy budget of both methods.",
    "delta": "Its delta.",
    "adjacency": "Which data sets are neighbours.",
    "metric": "Name of the metric.",
    "method_a": "The first method, as in the leaderboard.",
    "method_b": "The second.",
    "difference": "Mean of the first over seeds, less that of the second.",
    "ci_low": "Lower end of its 95% interval over seeds of both and test images; of this pair "
    "alone, not corrected.",
    "ci_high": "Upper end.",
    "p_value": "Two-sided p-value of no difference.",
    "adjusted_p_value": "The same after Holm's correction, over all pairs of methods at the same "
    "data set, profile, budget and metric.",
    "seeds_a": "Number of seeds of the first method.",
    "seeds_b": "Number of seeds of the second.",
    "unit": "Unit of the metric.",
    "higher_is_better": "Direction of the metric.",
    "n": "Number of synthetic images.",
    "split": "Split of the real images.",
    "extractor": "Id of the classifier.",
    "records_a": "Ids of the first method's records, 8 hex digits each.",
    "records_b": "Ids of the second's.",
}
# the same for both methods
_SHARED = (
    *("dataset", "profile", "epsilon", "delta", "adjacency", "metric"),
    *("unit", "higher_is_better", "n", "split", "extractor"),
)


def compare(table: pd.DataFrame) -> pd.DataFrame:
    """Compare all methods that are comparable, in pairs.

    Args:
        table: From ``leaderboard``. Rows of what is no score and of one seed are left out, as are
            those of which it is not known which test images were classified correctly, and those
            whose seeds share public weights.

    Returns:
        One row for each pair and metric, with the columns ``COLUMNS``.
    """
    independent = (table["seeds"] > 1) & ~table["interval"].str.endswith(GIVEN)
    known = table[(table["kind"] == "score") & independent & table["resampled"].notna()]
    rows = [pair for _, family in comparable(known) for pair in _pairs(family)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def files(compared: pd.DataFrame, leaderboards: Path) -> dict[Path, str]:
    """Return the text of a CSV for each data set in which methods are compared, by path."""
    names = compared["dataset"].map(safe_name)
    return {
        leaderboards / f"{name}{SUFFIX}.csv": to_csv(part)
        for name, part in compared.groupby(names, sort=False)
    }


def _pairs(family: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The rows of one family, over which p-values are corrected."""
    pairs = list(combinations([row for _, row in family.iterrows()], 2))
    estimates = [estimate_difference(a["resampled"], b["resampled"]) for a, b in pairs]
    adjusted = adjust_by_holm([estimate.p_value() for estimate in estimates])
    for (a, b), estimate, adjusted_p_value in zip(pairs, estimates, adjusted, strict=True):
        low, high = estimate.interval(CONFIDENCE)
        low, high = max(low, -FARTHEST), min(high, FARTHEST)
        yield {
            **a[list(_SHARED)],
            "method_a": a["method"],
            "method_b": b["method"],
            "difference": estimate.value,
            "ci_low": low,
            "ci_high": high,
            "p_value": estimate.p_value(),
            "adjusted_p_value": adjusted_p_value,
            "seeds_a": a["seeds"],
            "seeds_b": b["seeds"],
            "records_a": a["records"],
            "records_b": b["records"],
        }
