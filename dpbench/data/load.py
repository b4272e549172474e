"""A data set by name, as the splits that the benchmark uses."""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from dpbench.data import catalog, idx
from dpbench.data.catalog import CATALOG, DatasetInfo
from dpbench.data.idx import Array
from dpbench.data.sources import SOURCES, find
from dpbench.data.splits import split
from dpbench.errors import UserError
from dpbench.progress import Progress
from dpbench.types import Images, Splits

ENLARGED = 2  # 8x8 digits to 16x16
DIGITS_WHITE = 16  # scikit-learn's digits have values 0 to 16


@dataclass(frozen=True)
class Dataset:
    """A loaded data set.

    Attributes:
        info: What it is.
        splits: Train is the whole official train split, less what was held out for validation.
        content_hash: SHA-256 over the arrays of both official splits, hexadecimal; the same with
            and without validation.
        source: Where it was found, for people.
    """

    info: DatasetInfo
    splits: Splits
    content_hash: str
    source: str


def load(name: str, data_root: Path | None, progress: Progress, holdout: int = 0) -> Dataset:
    """Load a data set, downloading it into the user's cache where it is nowhere to be found.

    Args:
        name: A name in ``CATALOG``.
        data_root: The user's own folder, looked into first; None for the environment's
            ``DPBENCH_DATA``.
        progress: Who is told of downloads.
        holdout: Number of train images to hold out for validation: a fixed, class-stratified
            choice that does not depend on any seed; a smaller one is part of a larger one.

    Returns:
        The data set.

    Raises:
        UserError: The name is unknown, the data set cannot be had or has bad files, or
            ``holdout`` is not in [0, number of train images).
    """
    if name not in CATALOG:
        close = difflib.get_close_matches(name, CATALOG, n=1)
        suggestion = f"Did you mean {close[0]!r}? " if close else ""
        raise UserError(f"Unknown data set {name!r}. {suggestion}`dpbench list datasets`")
    info = CATALOG[name]
    if not 0 <= holdout < info.train:
        raise UserError(
            f"cannot hold out {holdout} of the {info.train} train images of {name}; "
            f"expected 0 to {info.train - 1}"
        )
    if name == catalog.DIGITS.name:
        train, test = _digits()
        source = "scikit-learn's load_digits"
    else:
        arrays, source = find(SOURCES[name], data_root, progress)
        train = _images(arrays[idx.TRAIN_IMAGES], arrays[idx.TRAIN_LABELS])
        test = _images(arrays[idx.TEST_IMAGES], arrays[idx.TEST_LABELS])
    content_hash = _content_hash(train, test)
    validation = None
    if holdout:
        train, validation = split(train, holdout)
    return Dataset(info, Splits(train, validation, test), content_hash, source)


def _digits() -> tuple[Images, Images]:
    """The digits, split once and for all into 1437 train and 360 test images (stratified)."""
    bundle = load_digits()
    values = bundle.images.astype(np.int64)
    pixels = (values * 255 + DIGITS_WHITE // 2) // DIGITS_WHITE  # rounded to nearest
    enlarged = pixels.repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2)
    everything = _images(enlarged.astype(np.uint8), bundle.target.astype(np.uint8))
    return split(everything, catalog.DIGITS.test)


def _images(pixels: Array, labels: Array) -> Images:
    return Images(torch.from_numpy(pixels).unsqueeze(1), torch.from_numpy(labels).long())


def _content_hash(*parts: Images) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(str(tuple(part.pixels.shape)).encode())  # the arrays' border is content too
        digest.update(part.pixels.contiguous().numpy().data)
        digest.update(part.labels.numpy().astype("<i8").data)
    return digest.hexdigest()
