"""How tables are written: as CSV, as plain values, and in words."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import pandas as pd

from dpbench.core.text import visible
from dpbench.records.sample_scores import NOT_CLAIMED

# what an interval is over
SEEDS, IMAGES = "seeds", "test images"
# added where seeds start from the same draw of public weights, whose effect their spread lacks
GIVEN = ", given shared public weights"

# text that begins with one of these is a formula to spreadsheets
FORMULA = ("=", "+", "-", "@")


def to_csv(table: pd.DataFrame) -> str:
    """Return a table as CSV at full precision: a missing number is empty, infinity is ``inf``.

    Text that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    plain = {
        name: column
        if pd.api.types.is_numeric_dtype(column)
        else pd.Series([_cell(each) for each in column], column.index, dtype=object)
        for name, column in table.items()
    }
    return pd.DataFrame(plain, table.index).to_csv(index=False, lineterminator="\n")


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    shown = visible(value)
    return f"'{shown}" if shown.startswith(FORMULA) and not _is_number(shown) else shown


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?", text) is not None


def to_rows(table: pd.DataFrame) -> list[dict[Hashable, Any]]:
    """Return a table as one dict per row, with None for a missing number."""
    plain = table.astype(object)
    return plain.where(plain.notna(), None).to_dict("records")


def epsilon_text(epsilon: float) -> str:
    """A budget's epsilon in words; NaN stands for samples that claim no privacy."""
    return NOT_CLAIMED if pd.isna(epsilon) else f"{epsilon:g}"


def interval_text(row: pd.Series) -> str:
    """A leaderboard row's interval in words: with what it is over, unless that is all there is."""
    parts = ["1 seed"] if row["seeds"] == 1 else []
    if not pd.isna(row["ci_low"]):
        parts.append(f"{row['ci_low']:.4g} to {row['ci_high']:.4g}")
    if row["interval"] in (SEEDS, IMAGES) or row["interval"].endswith(GIVEN):
        parts.append(f"({row['interval']})")
    return " ".join(parts)


def rank_text(row: pd.Series) -> str:
    """The ranks that a leaderboard row's interval allows: empty for one seed, a range for ties."""
    if pd.isna(row["rank_low"]):
        return ""
    low, high = row["rank_low"], row["rank_high"]
    return str(low) if low == high else f"{low}-{high}"
