"""Seeds without a value: how many a leaderboard's row lacks, and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pandas as pd

# measurements of a method that may stand in one row
_METHOD = ["repetition", "label"]
OTHERWISE = "measured in another way, in a row of its own"
NOT_MEASURED = "not measured"


class _Found(NamedTuple):
    """A measurement: the key of its row, its split and seed, its value's presence or reason."""

    key: tuple[object, ...]
    split: str
    seed: int
    has: bool
    reason: str


def find_gaps(measured: pd.DataFrame, repeated: Sequence[str]) -> pd.DataFrame:
    """Find the seeds that rows lack.

    A measurement that failed says neither how many images there were nor which extractor saw them.
    Where other seeds of the method have a value it is a gap in their row, and no row of its own.

    Args:
        measured: Measurements, with the columns of ``measurement_frame`` and ``repeated``.
        repeated: Columns that are equal in the measurements of one row.

    Returns:
        By ``repeated``, a row for each row of the leaderboard: ``missing``, the number of seeds
        without a value, and ``reason``, why there is none.
    """
    by_metric: dict[tuple[object, ...], list[_Found]] = defaultdict(list)
    seeds: dict[tuple[object, ...], set[int]] = defaultdict(set)
    columns = [measured[name].tolist() for name in (*_METHOD, "metric", "split", "seed", "reason")]
    keys = zip(*(measured[name].tolist() for name in repeated), strict=True)
    present = measured["value"].notna().tolist()
    for key, has, *method, metric, split, seed, reason in zip(keys, present, *columns, strict=True):
        by_metric[*method, metric].append(_Found(key, split, seed, has, reason))
        seeds[tuple(method)].add(seed)
    gaps: dict[tuple[object, ...], tuple[int, str]] = {}
    for (*method, _), found in by_metric.items():
        rows: dict[tuple[object, ...], list[_Found]] = defaultdict(list)
        for each in found:
            rows[each.key].append(each)
        for key, row in rows.items():
            split, has = row[0].split, {each.seed for each in row if each.has}
            if not has and any(each.has and split in (each.split, "") for each in found):
                continue
            own = [each for each in found if each.split in (split, "")] if has else row
            missing = sorted(seeds[tuple(method)] - has)
            why = {seed: _why([each for each in own if each.seed == seed]) for seed in missing}
            gaps[key] = len(missing), _in_words(why, bool(has))
    index = pd.MultiIndex.from_tuples(list(gaps), names=list(repeated))
    return pd.DataFrame(list(gaps.values()), index, ["missing", "reason"])


def _why(found: Sequence[_Found]) -> str:
    reasons = [each.reason for each in found if each.reason]
    return reasons[0] if reasons else OTHERWISE if found else NOT_MEASURED


def _in_words(why: dict[int, str], has_values: bool) -> str:
    by_reason: dict[str, list[int]] = {}
    for seed, reason in why.items():
        by_reason.setdefault(reason, []).append(seed)
    if not has_values and len(by_reason) == 1:
        return next(iter(by_reason))
    return "; ".join(f"{_seeds(seeds)}: {reason}" for reason, seeds in by_reason.items())


def _seeds(seeds: Iterable[int]) -> str:
    names = [str(seed) for seed in seeds]
    return f"seed{'s' if len(names) > 1 else ''} {', '.join(names)}"
