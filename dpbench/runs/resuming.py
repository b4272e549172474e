"""What runs of methods and evaluations of samples share: they continue from what is done.

Both keep a record of named parts, write it at the end of each part, and leave out the parts that
it names as done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Protocol, TypeVar

from dpbench.core.canonical import to_json
from dpbench.core.errors import UserError
from dpbench.records.run_record import RunSpec
from dpbench.records.sample_scores import ScoresSpec


class Resumable(Protocol):
    """A record of parts.

    Attributes:
        done: Names of the parts that ended well, in order.
        timings: Seconds spent on each part.
    """

    done: list[str]
    timings: dict[str, float]

    @property
    def spec(self) -> RunSpec | ScoresSpec:
        """What the record is of."""


Record = TypeVar("Record", bound=Resumable)


@contextmanager
def timed_part(record: Resumable, name: str, save: Callable[[], None]) -> Iterator[None]:
    """Add the block's seconds to the part ``name``, and mark the part done if the block ends well.

    Args:
        record: Changed in place.
        name: The part.
        save: Called last, also after an error or an interruption.
    """
    started = time.perf_counter()
    try:
        yield
        if name not in record.done:  # an evaluator that is tried again is there already
            record.done.append(name)
    finally:
        seconds = time.perf_counter() - started
        record.timings[name] = record.timings.get(name, 0.0) + seconds
        save()


def read_earlier(
    file: Path,
    read: Callable[[Path], Record],
    spec: RunSpec | ScoresSpec,
    holds: str,
    advice: str,
) -> Record:
    """Read the record that an earlier call left, which must have the same specification.

    Args:
        file: The record's file.
        read: Reads it.
        spec: What the record must be of.
        holds: The place and the kind of record, for the message: "PLACE holds another KIND".
        advice: What to do if it is not the record wanted.

    Raises:
        UserError: The record cannot be read, or has another specification.
    """
    try:
        record = read(file)
    except UserError as error:
        raise UserError(f"{error}; {advice}") from error
    old, new = to_json(asdict(record.spec)), to_json(asdict(spec))
    differing = ", ".join(name for name in new if old[name] != new[name])
    if differing:
        raise UserError(f"{holds} (it differs in {differing}): {advice}")
    return record
