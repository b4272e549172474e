"""Tables as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence


def to_csv(table: Sequence[Mapping[str, object]]) -> str:
    """Rows as CSV at full precision; a missing number is an empty cell, infinity is ``inf``.

    Args:
        table: At least one row; all have the names of the first, in its order.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return out.getvalue()
