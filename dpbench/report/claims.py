"""The claims and what our records say of them, as a CSV and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from dpbench.claims.published import CLAIMS
from dpbench.claims.verdicts import FEWEST_SEEDS, Verdict
from dpbench.claims.verdicts import judge as decided
from dpbench.record import RunRecord
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
_STYLE = (
    "body{font:15px sans-serif;margin:2em;max-width:90em}td,th{text-align:left;vertical-align:top;"
    "padding:.4em .8em .4em 0;border-bottom:1px solid #ccc}table{border-collapse:collapse}"
)
# as columns of the page; the rest stands in the text of the claim
_SHOWN = ("verdict", "estimate", "ci_low", "ci_high", "against", "seeds", "p_holm", "reason")


def judge(records: Sequence[RunRecord]) -> list[Verdict]:
    """The verdicts on all published claims."""
    return decided(CLAIMS, records)


def row(verdict: Verdict) -> dict[str, object]:
    """A verdict as names and values; None for a number that there is not."""
    claim, found = verdict.claim, verdict.evidence
    return {
        "id": claim.id,
        "verdict": verdict.decision,
        "estimate": verdict.estimate,
        "ci_low": verdict.low,
        "ci_high": verdict.high,
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


def files(verdicts: Sequence[Verdict], leaderboards: Path) -> dict[Path, str]:
    """The texts of the files of claims, by path."""
    table = [row(verdict) for verdict in verdicts]
    return {leaderboards / CSV: to_csv(table), leaderboards / PAGE: _page(table)}


def _page(table: Sequence[dict[str, object]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("claim", *_SHOWN))
    body = "\n".join(
        f"<tr><td>{_text(each)}</td>"
        + "".join(f"<td>{_cell(each[name])}</td>" for name in _SHOWN)
        + "</tr>"
        for each in table
    )
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>Claims</title>\n'
        f"<style>{_STYLE}</style>\n<h1>Published claims, tried by our own records</h1>\n"
        f"<p>{escape(NOTE)}</p>\n<table>\n<tr>{head}</tr>\n{body}\n</table>\n</html>\n"
    )


def _text(each: dict[str, object]) -> str:
    lines = (
        f"<b>{_cell(each['statement'])}</b> ({_cell(each['id'])})",
        f"{_cell(each['source'])}. Published: {_cell(each['published'])}",
        f"Here: {_cell(each['here'])} Estimate: {_cell(each['estimand'])}, runs of profile "
        f"{_cell(each['profile'])}: {_cell(each['arms'])}",
        f"Records: {_cell(each['records']) or 'none'}; runs missing: {_cell(each['missing'])}",
    )
    return "<br>".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else escape(str(value))
