"""The claims and what our records say of them, as a CSV and as a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pandas as pd

from dpbench.claims.published import CLAIMS
from dpbench.claims.verdicts import FEWEST_SEEDS, ClaimVerdict, Decision
from dpbench.claims.verdicts import judge as decided
from dpbench.records.run_record import RunRecord
from dpbench.report.metrics import range_of
from dpbench.report.pages import render
from dpbench.report.tables import to_csv

CSV, PAGE = "claims.csv", "claims.html"
NOTE = (
    "Estimates are means over seeds of one number for each seed, in the direction of the claim: "
    "above the value in the column against, they speak for it. Intervals are Student's, at 95%, "
    "over seeds at the same test images, and not adjusted; p-values are adjusted by Holm's "
    f"procedure over all claims that could be tested. Fewer than {FEWEST_SEEDS} seeds decide "
    "nothing, nor do smoke runs and digits. "
    "Published figures are the papers' own, of their data and their compute. The runs here are far "
    "smaller, so that a verdict is of the claim at our size and not of what they found at theirs."
)
# as columns of the page; the rest stands in the text of the claim
_SHOWN = ("verdict", "estimate", "ci_low", "ci_high", "against", "seeds", "p_holm", "reason")


def judge(records: Sequence[RunRecord]) -> list[ClaimVerdict]:
    """The verdicts on all published claims."""
    return decided(CLAIMS, records)


def row(verdict: ClaimVerdict) -> dict[str, object]:
    """A verdict as names and values; None for a number that there is not."""
    claim, found = verdict.claim, verdict.evidence
    low, high = _in_range(verdict)
    return {
        "id": claim.id,
        "verdict": verdict.decision,
        "estimate": verdict.estimate,
        "ci_low": low,
        "ci_high": high,
        "against": found.null,
        "unit": found.unit,
        "seeds": len(found.values),
        "p_holm": verdict.p_value,
        "missing": found.missing,
        "reason": verdict.reason,
        "estimand": found.estimand,
        "profile": found.profile,
        "statement": claim.statement,
        "source": claim.source,
        "published": claim.published,
        "here": claim.here,
        "arms": "; ".join(map(str, claim.rule.arms)),
        "records": " ".join(found.records),
    }


def _in_range(verdict: ClaimVerdict) -> tuple[float | None, float | None]:
    """The ends of the interval; that of a metric itself ends where the metric's range does."""
    claim, found, low, high = verdict.claim, verdict.evidence, verdict.low, verdict.high
    if low is None or high is None or found.estimand not in {m.name for m in claim.rule.metrics}:
        return low, high  # differences have no such range
    least, most = range_of(found.estimand, found.unit, found.values.values())
    return max(low, least), min(high, most)


def files(
    verdicts: Sequence[ClaimVerdict], alarms: Sequence[str], leaderboards: Path
) -> dict[Path, str]:
    """The texts of the files of claims, by path.

    Args:
        verdicts: On all claims.
        alarms: A line for each record with an audit alarm, whether a claim rests on it or not.
        leaderboards: Folder of the files.
    """
    rows = [row(verdict) for verdict in verdicts]
    page = render(
        "claims.html.j2",
        summary=summary(verdicts),
        note=NOTE,
        alarms=alarms,
        columns=_SHOWN,
        rows=rows,
    )
    return {leaderboards / CSV: to_csv(pd.DataFrame(rows)), leaderboards / PAGE: page}


def summary(verdicts: Sequence[ClaimVerdict]) -> str:
    """How many claims have each verdict, in a sentence."""
    found = Counter(each.decision for each in verdicts)
    counts = ", ".join(f"{found[name]} {name}" for name in get_args(Decision) if found[name])
    return f"Of {len(verdicts)} published claims: {counts}."
