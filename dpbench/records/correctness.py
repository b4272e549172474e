"""Which test images a run's classifiers predicted correctly: one bit each, beside the record.

Beside a run's record, evaluators keep the class that they predicted for every test image, 24 kB for
three classifiers and 10,000 images. Intervals need 5 kB of it, little enough to commit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dpbench.core.errors import UserError
from dpbench.core.files import sha256
from dpbench.core.metrics import Measurement
from dpbench.core.npz import read_all
from dpbench.records.run_record import KEPT, RunRecord
from dpbench.stats.bootstrap import Correct

LABELS = "labels"
SUFFIX = ".correct.npz"  # in place of the record's .json


def correct_of_run(folder: Path, record: RunRecord) -> dict[str, Correct]:
    """Read the predictions that a run's evaluators kept, as correct or not.

    An array holds the predictions of a metric if it has the metric's name, stands beside
    ``labels``, and agrees with them in as many percent as the metric's value.

    Args:
        folder: The run's folder.
        record: The run's record.

    Returns:
        For each metric, a bool array ``(N,)``: whether each test image was predicted correctly, in
        the split's order. Files that are no longer there are skipped.

    Raises:
        UserError: A file is not the one that the run wrote.
    """
    measured, found = _measured(record), {}
    for name, expected in record.artifacts.items():
        file = folder / name
        if not name.startswith(KEPT) or not file.is_file():
            continue
        if sha256(file) != expected:
            raise UserError(f"{file} is not the file that the run wrote: restore it, or remove it")
        try:
            arrays = read_all(file)
        except ValueError as error:
            raise UserError(f"{file} holds no predictions: {error}") from error
        labels = arrays.get(LABELS)
        for metric in measured.keys() & arrays.keys():
            if labels is not None and arrays[metric].shape == labels.shape:
                right = np.asarray(arrays[metric] == labels)
                if right.shape == labels.shape and _gives(right, measured[metric]):
                    found[metric] = right
    return found


def beside(file: Path) -> Path:
    """Where a committed record keeps what ``correct_of_run`` found."""
    return file.with_suffix(SUFFIX)


def write_correct(file: BinaryIO, correct: Mapping[str, Correct]) -> None:
    """Write what ``correct_of_run`` found; equal input, equal bytes."""
    bits: dict[str, Any] = {name: np.packbits(right) for name, right in sorted(correct.items())}
    np.savez(file, **bits)


def read_correct(file: Path, record: RunRecord, text: bytes | None = None) -> dict[str, Correct]:
    """Read what ``write_correct`` wrote beside a committed record.

    Args:
        file: The record's file.
        record: Its content.
        text: What is written beside it soon; None for what is there.

    Returns:
        As ``correct_of_run``; empty where nothing was written, such as for older records.

    Raises:
        UserError: The file cannot be read, or does not give the values in the record.
    """
    file = beside(file)
    if text is None and not file.is_file():
        return {}
    measured = _measured(record)
    try:
        bits = read_all(file if text is None else text)
        for metric, packed in bits.items():
            if metric not in measured:
                raise ValueError(f"{metric} was not measured")
            if packed.shape != (math.ceil(measured[metric].n_real / 8),):
                raise ValueError(f"{metric} is of another number of images")
        found = {
            metric: np.unpackbits(packed, count=measured[metric].n_real).astype(bool)
            for metric, packed in bits.items()
        }
    except (ValueError, TypeError) as error:
        raise UserError(f"{file} holds no outcomes of its record: {error}") from error
    if wrong := [name for name, right in found.items() if not _gives(right, measured[name])]:
        raise UserError(
            f"{file} does not give what its record says of {', '.join(wrong)}: restore or remove it"
        )
    return found


def _measured(record: RunRecord) -> dict[str, Measurement]:
    return {each.metric: each for each in record.measurements if each.value is not None}


def _gives(right: Correct, measurement: Measurement) -> bool:
    """Whether the measurement is the percentage of correct predictions."""
    return (
        right.shape == (measurement.n_real,) != (0,)
        and measurement.value is not None
        and math.isclose(100 * int(right.sum()) / len(right), measurement.value)
    )
