"""The page that a reader opens first: every method's score in the headline metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dpbench.api.profiles import PROFILES
from dpbench.claims.arms import PROFILE as CLAIMS
from dpbench.claims.verdicts import ClaimVerdict
from dpbench.core.files import safe_name
from dpbench.records.departures import MEANINGS
from dpbench.report import claims, comparisons
from dpbench.report.leaderboard import AUDIT_NOTE, INTERVAL_NOTE
from dpbench.report.metrics import BEST_FIRST, CURVES, HEADLINES, curve_of
from dpbench.report.pages import render
from dpbench.report.tables import epsilon_text, interval_text

PAGE = "index.html"
# rows that agree in these are a line of the page
_LINE = ["method", "method_version", "epsilon", "delta", "adjacency", "release"]
NOTE = (
    "Every number is derived from the records beside this page by `dpbench report`; all else that "
    "was measured is in the CSVs. CAS is the accuracy on real test images of a classifier trained "
    "on synthetic ones, cas_predictor that of a method's own classifier, which makes no images. "
    "fd_cnn is the Fréchet distance to the real test images in features of a CNN of the data set: "
    "lower is better, and it is not FID."
)
# the default first; the page of claims shows the runs of profile claims
PROFILES_SHOWN = ("laptop", *(name for name in PROFILES if name not in ("laptop", CLAIMS)))


def files(
    table: pd.DataFrame,
    compared: pd.DataFrame,
    verdicts: Sequence[ClaimVerdict],
    spent: Sequence[str],
    alarms: Sequence[str],
    leaderboards: Path,
) -> dict[Path, str]:
    """Return the text of the page, by path.

    Args:
        table: From ``leaderboard``.
        compared: From ``compare``.
        verdicts: On the published claims.
        spent: What all runs on a data set spent together, a line for each data set.
        alarms: A line for each record with an audit alarm.
        leaderboards: Folder of the page.
    """
    text = render(
        "index.html.j2",
        notes=(NOTE, INTERVAL_NOTE, AUDIT_NOTE, *spent),
        alarms=alarms,
        claims_summary=claims.summary(verdicts),
        claims_page=claims.PAGE,
        datasets=datasets(table, compared),
    )
    return {leaderboards / PAGE: text}


def datasets(table: pd.DataFrame, compared: pd.DataFrame) -> list[dict[str, Any]]:
    """What the page shows of each data set: by profile a line for each method and budget.

    Args:
        table: From ``leaderboard``.
        compared: From ``compare``.
    """
    return [
        _dataset(str(name), own, bool((compared["dataset"] == name).any()))
        for name, own in table.groupby("dataset", sort=False)
    ]


def _dataset(name: str, table: pd.DataFrame, compared: bool) -> dict[str, Any]:
    file = safe_name(name)
    drawn = set(table.loc[table["mean"].notna(), "metric"].map(curve_of))
    return {
        "name": name,
        "csv": f"{file}.csv",
        "comparisons": f"{file}{comparisons.SUFFIX}.csv" if compared else "",
        "profiles": [
            _profile(profile, table[table["profile"] == profile])
            for profile in PROFILES_SHOWN
            if (table["profile"] == profile).any()
        ],
        "figures": [
            {"title": curve.title, "file": curve.figure(name)} for curve in CURVES if curve in drawn
        ],
    }


def _profile(name: str, table: pd.DataFrame) -> dict[str, Any]:
    """A table with a line for each method and budget: the largest epsilon first, then the best."""
    headlines = table[table["metric"].isin(HEADLINES) & table["split"].isin(("test", ""))]
    measured = set(headlines.loc[headlines["mean"].notna(), "metric"])
    metrics = [metric for metric in HEADLINES if metric in measured]
    budgets = table.groupby(_LINE, sort=False, dropna=False)
    lines = sorted((line for _, line in budgets), key=_order)
    departures = {name for each in table["departures"] for name in each.split("; ") if name}
    return {
        "name": name,
        "metrics": metrics,
        "lines": [_line(line, metrics) for line in lines],
        "footnotes": [
            f"The method of the paper with {name} of ours"
            + (f": {MEANINGS[name]}." if name in MEANINGS else ".")
            for name in sorted(departures)
        ],
    }


def _order(line: pd.DataFrame) -> tuple[float, float]:
    """What claims no privacy stands last, as in the CSVs."""
    epsilon = line["epsilon"].iloc[0]
    best = line.loc[line["metric"] == BEST_FIRST, "mean"].max()
    return math.inf if pd.isna(epsilon) else -epsilon, 0.0 if pd.isna(best) else -best


def _line(line: pd.DataFrame, metrics: Sequence[str]) -> dict[str, Any]:
    headlines = line[line["split"].isin(("test", ""))]
    lower = line["audited_epsilon_lower"].max()
    ceiling, alarms = line["audited_epsilon_ceiling"].min(), line["audit_alarms"].max()
    revisions = line["revisions"].max()
    low, high = line["sigma_ratio_low"].min(), line["sigma_ratio_high"].max()
    return {
        "method": line["method"].iloc[0] + ("*" if line["departures"].iloc[0] else ""),
        "made": f"by {revisions} revisions of the code" if revisions > 1 else "",
        "epsilon": epsilon_text(line["epsilon"].iloc[0]),
        "seeds": int(line["seeds"].max()),
        "scores": [
            [_score(row) for _, row in headlines[headlines["metric"] == metric].iterrows()]
            for metric in metrics
        ],
        "audited_epsilon": ("" if pd.isna(lower) else f"at least {lower:.2g}")
        + ("" if pd.isna(ceiling) else f", could have shown {ceiling:.2g}"),
        "alarms": "" if pd.isna(alarms) else f"{alarms} ALARM" if alarms else "none",
        "audited_noise": "" if pd.isna(low) or pd.isna(high) else f"{low:.3f} to {high:.3f}",
    }


def _score(row: pd.Series) -> dict[str, str]:
    """The mean with its interval, or the reason why there is none."""
    if pd.isna(row["mean"]):
        return {"mean": "", "interval": "", "reason": row["reason"]}
    seeds = "" if row["seeds"] == 1 else f"{row['seeds']} seeds "
    mean = f"{row['mean']:.4g}{row['unit']}"
    return {"mean": mean, "interval": seeds + interval_text(row), "reason": ""}
