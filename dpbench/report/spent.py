"""What all committed runs on one private data set spent together: seeds and grids compose."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from dpbench.core.errors import UserError
from dpbench.privacy.budget import Adjacency
from dpbench.privacy.certificate import events_of
from dpbench.privacy.epsilon import epsilon_near, noiseless
from dpbench.privacy.events import DPSGDEvent, Event
from dpbench.records.run_record import RunRecord
from dpbench.report.datasets import distinct_names

# The PLD grid suits an epsilon near this. A coarse grid is quick and errs upwards: for 152 runs of
# a total of 75.7 it gives 75.8 in two seconds.
NEAR = 100.0
VALID = "valid"  # of a release: neither of a run without privacy nor with reproducible noise


def spent_together(records: Sequence[RunRecord]) -> list[str]:
    """Say what private runs on the same data set spent together.

    Args:
        records: Of any runs; those that are not private are left out.

    Returns:
        A line for each data set and adjacency.

    Raises:
        UserError: A certificate has events that are none.
    """
    by_data: dict[tuple[str, str, Adjacency], list[RunRecord]] = {}
    for record in records:
        spec = record.spec
        if record.privacy.get("release") == VALID and "events" in record.privacy:
            key = spec.dataset, spec.dataset_hash, spec.adjacency
            by_data.setdefault(key, []).append(record)
    names = distinct_names((name, content) for name, content, _ in by_data)
    return [
        _line(names[name, content], adjacency, own)
        for (name, content, adjacency), own in by_data.items()
    ]


def _line(dataset: str, adjacency: Adjacency, records: Sequence[RunRecord]) -> str:
    delta = max(record.spec.delta for record in records)
    total = total_epsilon(records, delta, adjacency)
    return (
        f"Together the {len(records)} committed private runs on {dataset} spent at most "
        f"epsilon = {total:g} at delta = {delta:g}, by composition of all their events with "
        "privacy loss distributions: an upper bound, rounded up. The epsilon of a row is that of "
        "one run; runs that are not committed add to the sum, and scores are not private at all."
    )


def total_epsilon(records: Iterable[RunRecord], delta: float, adjacency: Adjacency) -> float:
    """Compose the events of all certificates.

    Args:
        records: Of private runs on the same data set.
        delta: In (0, 1).
        adjacency: Which data sets are neighbours.

    Returns:
        An upper bound of epsilon at ``delta``, rounded up to a whole number, which is the same on
        every machine; infinite if an event has hardly any noise.

    Raises:
        UserError: A certificate has events that are none.
    """
    counted: Counter[Event] = Counter()
    for record in records:
        try:
            counted.update(replace(event, purpose="any") for event in events_of(record.privacy))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"record {record.spec.id[:8]} has no events: {error}") from error
    events: list[Event] = []
    for event, count in counted.items():
        if isinstance(event, DPSGDEvent):  # steps alike are composed at once
            events.append(replace(event, steps=count * event.steps))
        else:
            events.extend([event] * count)
    if noiseless(events):
        return math.inf
    return math.ceil(epsilon_near(NEAR, events, delta, adjacency)) if events else 0.0
