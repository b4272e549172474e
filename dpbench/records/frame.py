"""One tidy table of measurements, from which leaderboards, comparisons and figures derive."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pandas as pd

from dpbench.core.metrics import Measurement
from dpbench.records.departures import departures
from dpbench.records.run_record import RunRecord
from dpbench.records.sample_scores import NOT_CLAIMED, Scores

# in place of the measurements of a record that has none, so that the record still has a row
_NOTHING = Measurement("", None, "", True, 0, reason="nothing was measured")
_MEASUREMENT = (
    "metric",
    "value",
    "unit",
    "higher_is_better",
    "n",
    "split",
    "extractor",
    "reason",
    "version",
    "kind",
)
_SPEC = (
    *("method", "method_version", "dataset", "dataset_hash", "epsilon", "delta", "adjacency"),
    *("seed", "profile"),
)
_DERIVED = (
    *("id", "repetition", "label", "departures", "accounted_epsilon", "release", "revision"),
    "own_public_weights",
)
_COUNTS = ("private_evaluations", "public_evaluations")
_COLUMNS = (*_DERIVED, *_SPEC, *_COUNTS, "fit_seconds", *_MEASUREMENT)
_REVISION = "git_revision"  # in a record's environment
_FLOATS = ("epsilon", "delta", "accounted_epsilon", "fit_seconds", "value")


def measurement_frame(records: Iterable[RunRecord], scores: Iterable[Scores] = ()) -> pd.DataFrame:
    """Lay out the measurements of records, and of scores of samples, as rows of one table.

    Args:
        records: Those of runs that are not complete are left out.
        scores: Of samples of unknown origin. They claim no privacy, so their rows lack what a
            budget, a certificate and training would say.

    Returns:
        One row for each measurement, with the columns

        - ``metric``, ``value``, ``unit``, ``higher_is_better``, ``n``, ``split``, ``extractor``,
          ``reason``, ``version`` and ``kind``: the measurement;
        - ``id``: 64 hex digits of the record's spec; ``repetition``: the same without the seed,
          equal in runs that differ in their seeds alone;
        - ``label``: the method, with ``+name=value`` for every hyper-parameter that was set by
          hand; ``departures``: what it has that its paper has not, separated by ``"; "``;
        - ``method``, ``method_version``, ``dataset``, ``dataset_hash``, ``epsilon``, ``delta``,
          ``adjacency``, ``seed`` and ``profile``: from the spec;
        - ``accounted_epsilon`` and ``release``: from the certificate;
        - ``own_public_weights``: whether those that training started from, if any, are the seed's;
        - ``revision``: of the code that made it, or ``""`` where it is not known;
        - ``private_evaluations``, ``public_evaluations`` and ``fit_seconds``: cost of training.

        A missing number is NaN or NA. A record without measurements has one row, with ``""`` as
        its metric.
    """
    sources = [
        *((_columns_of_run(each), each.measurements) for each in records if _is_complete(each)),
        *((_columns_of_samples(each), each.measurements) for each in scores),
    ]
    rows = [
        {**shared, **{name: getattr(measurement, name) for name in _MEASUREMENT}}
        for shared, measurements in sources
        for measurement in measurements or [_NOTHING]
    ]
    frame = pd.DataFrame(rows, columns=list(_COLUMNS))
    return frame.astype({**dict.fromkeys(_FLOATS, "float64"), **dict.fromkeys(_COUNTS, "Int64")})


def _is_complete(record: RunRecord) -> bool:
    return record.status == "complete"


def _columns_of_run(record: RunRecord) -> dict[str, Any]:
    spec = record.spec
    by_hand = sorted(record.resolved.get("by_hand", []))
    settings = [f"+{name}={spec.method_args[name]}" for name in by_hand]
    return {
        **{name: getattr(spec, name) for name in _SPEC},
        "id": spec.id,
        "repetition": replace(spec, seed=0).id,
        "label": "".join((spec.method, *settings)),
        "departures": "; ".join(departures(record)),
        "revision": record.environment.get(_REVISION) or "",
        "own_public_weights": record.own_public_weights,
        "accounted_epsilon": float(record.privacy["epsilon"]),
        "release": record.privacy["release"],
        "private_evaluations": record.cost["private_evaluations"],
        "public_evaluations": record.cost["public_evaluations"],
        "fit_seconds": record.timings["fit"],
    }


def _columns_of_samples(scores: Scores) -> dict[str, Any]:
    spec = scores.spec
    return {
        "method": spec.name,
        "dataset": spec.dataset,
        "dataset_hash": spec.dataset_hash,
        "adjacency": "",
        "seed": spec.seed,
        "profile": spec.profile,
        "id": spec.id,
        "repetition": spec.id,
        "label": f"{spec.name} (unknown origin)",
        "method_version": "",
        "departures": "",
        "revision": scores.environment.get(_REVISION) or "",
        "own_public_weights": True,
        "release": NOT_CLAIMED,
    }
