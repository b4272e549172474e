"""The page that a reader opens first: what was scored, in the metrics that say most."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from dpbench.api.profiles import PROFILES
from dpbench.claims.arms import PROFILE as CLAIMS
from dpbench.claims.verdicts import ClaimVerdict
from dpbench.core.files import safe_name
from dpbench.report import claims, html
from dpbench.report.comparisons import SUFFIX as COMPARISONS
from dpbench.report.comparisons import Comparison
from dpbench.report.curves import CURVES, curve_of
from dpbench.report.html import cell
from dpbench.report.leaderboard import AUDIT_NOTE, INTERVAL_NOTE, Row

PAGE = "index.html"
NOTE = (
    "Every number is derived from the records beside this page by `dpbench report`; all else that "
    "was measured is in the CSVs. CAS is the accuracy on real test images of a classifier trained "
    "on synthetic ones, cas_predictor that of a method's own classifier, which makes no images. "
    "fd_cnn is the Fréchet distance to the real test images in features of a CNN of the data set: "
    "lower is better, and it is not FID."
)
# against real test images; a column that no method of a table has is left out
HEADLINES = ("cas_logreg", "cas_mlp", "cas_cnn", "cas_predictor", "fid", "fd_cnn")
BEST_FIRST = "cas_cnn"
# the default first; what runs of profile claims show is on the page of claims
SHOWN = ("laptop", *(name for name in PROFILES if name not in ("laptop", CLAIMS)))


def files(
    rows: Sequence[Row],
    compared: Sequence[Comparison],
    verdicts: Sequence[ClaimVerdict],
    leaderboards: Path,
) -> dict[Path, str]:
    """The text of the page, by path.

    Args:
        rows: All of the leaderboards.
        compared: All of the comparisons.
        verdicts: On the published claims.
        leaderboards: Where the page is.
    """
    parts = [html.paragraph(NOTE), html.paragraph(INTERVAL_NOTE), html.paragraph(AUDIT_NOTE)]
    summary = cell(claims.summary(verdicts))
    parts.append(f'<p>{summary} <a href="{claims.PAGE}">Which, and how.</a></p>')
    for dataset in dict.fromkeys(row.dataset for row in rows):
        own = [row for row in rows if row.dataset == dataset]
        parts += _dataset(dataset, own, any(each.dataset == dataset for each in compared))
    return {leaderboards / PAGE: html.page("dpbench", *parts)}


def _dataset(name: str, rows: Sequence[Row], compared: bool) -> list[str]:
    file = safe_name(name)
    tables = [f'<a href="{file}.csv">all metrics</a>']
    if compared:
        tables.append(f'<a href="{file}{COMPARISONS}.csv">comparisons of methods</a>')
    parts = [f"<h2>{cell(name)}</h2>", f"<p>As CSV: {', '.join(tables)}</p>"]
    for profile in SHOWN:
        own = [row for row in rows if row.profile == profile]
        if own:
            parts += [f"<h3>profile {cell(profile)}</h3>", _table(own)]
    for curve in CURVES:
        if any(curve_of(row.metric) is curve and row.mean is not None for row in rows):
            says = cell(curve.suffix[1:].replace("_", " "))
            parts += [f"<h3>{says}</h3>", f'<img src="{curve.figure(name)}" alt="{says}">']
    return parts


def _table(rows: Sequence[Row]) -> str:
    """A line for each method and budget: the largest epsilon first, then the best."""
    lines: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in rows:
        lines[row.method, row.epsilon, row.delta, row.adjacency].append(row)
    found = {row.metric for row in rows if _is_headline(row) and row.mean is not None}
    shown = [metric for metric in HEADLINES if metric in found]
    return html.table(
        ("method", "epsilon", *shown, "epsilon by audit", "noise over claimed noise"),
        (_line(line, shown) for line in sorted(lines.values(), key=_order)),
    )


def _is_headline(row: Row) -> bool:
    return row.metric in HEADLINES and row.split in ("test", "")


def _order(line: Sequence[Row]) -> tuple[float, float]:
    """What claims no privacy stands last, as in the CSVs."""
    epsilon = line[0].epsilon
    best = max((row.mean or 0.0 for row in line if row.metric == BEST_FIRST), default=0.0)
    return (math.inf if epsilon is None else -epsilon, -best)


def _line(line: Sequence[Row], shown: Sequence[str]) -> list[str]:
    return [
        cell(line[0].method),
        cell(line[0].epsilon_said),
        *(
            "<br>".join(_value(row) for row in line if _is_headline(row) and row.metric == name)
            for name in shown
        ),
        _audited(line),
        _noise(line),
    ]


def _value(row: Row) -> str:
    """The mean with its interval; a dash with the reason where there is none."""
    if row.mean is None:
        return f'<span title="{cell(row.reason)}">&ndash;</span>'
    said = row.interval_said if row.seeds == 1 else f"{row.seeds} seeds {row.interval_said}"
    return f"{row.mean:.4g}{cell(row.unit)}<br><small>{cell(said)}</small>"


def _audited(line: Sequence[Row]) -> str:
    lower = [row.audited_epsilon_lower for row in line if row.audited_epsilon_lower is not None]
    return f"at least {max(lower):.2g}" if lower else ""


def _noise(line: Sequence[Row]) -> str:
    low = [row.sigma_ratio_low for row in line if row.sigma_ratio_low is not None]
    high = [row.sigma_ratio_high for row in line if row.sigma_ratio_high is not None]
    return f"{min(low):.3f} to {max(high):.3f}" if low and high else ""
