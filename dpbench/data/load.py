"""Load data sets by name, in the splits that the benchmark uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dpbench.core.errors import UserError, unknown
from dpbench.core.images import Images, Splits, content_hash
from dpbench.core.progress import Progress
from dpbench.data import arrays, catalog
from dpbench.data.arrays import Original
from dpbench.data.catalog import CATALOG, DatasetInfo
from dpbench.data.formats import folders
from dpbench.data.sets import camelyon, celeba, cifar, imagenet32, mnist
from dpbench.data.splits import hold_out, split

ENLARGED = 2  # 8x8 digits to 16x16
DIGITS_WHITE = 16  # scikit-learn's digits have values 0 to 16

# data sets that are mapped into memory, by name
ORIGINALS: dict[str, Callable[[Path | None, Progress], Original]] = {
    "cifar10": cifar.find,
    "celeba": celeba.find,
    "camelyon17": camelyon.find,
    "imagenet32": imagenet32.find,
}
_PLACES: dict[str, tuple[Callable[[Path | None], Path | None], str]] = {
    "cifar10": (cifar.located, cifar.GET),
    "celeba": (celeba.located, celeba.GET),
    "camelyon17": (camelyon.located, camelyon.GET),
    "imagenet32": (imagenet32.located, imagenet32.GET),
}


@dataclass(frozen=True)
class Dataset:
    """A loaded data set.

    Attributes:
        info: Entry of the catalog, or the info of the image folder.
        splits: Train is the official train split without the images held out for validation.
        content_hash: SHA-256 of all official splits, as 64 hex digits; does not depend on what is
            held out.
        source: Where the data set was found, as shown to the user.
    """

    info: DatasetInfo
    splits: Splits
    content_hash: str
    source: str


def find_info(name: str) -> DatasetInfo:
    """Look up a data set without loading it; an image folder is listed for it.

    Args:
        name: A name in ``CATALOG``, or ``imagefolder:PATH``; the name in the info of a folder has
            only the last part of the path.

    Raises:
        UserError: The name is unknown, or the path is not a folder of images.
    """
    if name.startswith(folders.PREFIX):
        return folders.look(name).info
    if name not in CATALOG:
        raise UserError(unknown("dataset", name, (*CATALOG, f"{folders.PREFIX}PATH")))
    return CATALOG[name]


def load(name: str, data_root: Path | None, progress: Progress, holdout: int = 0) -> Dataset:
    """Load a data set; download it into the user's cache if it is found nowhere else.

    Args:
        name: A name in ``CATALOG``, or ``imagefolder:PATH``.
        data_root: The user's own folder, searched first; None for the environment's
            ``DPBENCH_DATA``.
        progress: Receives progress updates of downloads and decoding.
        holdout: Number of train images to hold out for validation (by ``splits.hold_out``), in
            place of an official validation split. Both parts are then copied into memory.

    Returns:
        The data set.

    Raises:
        UserError: The name is unknown, the data set cannot be obtained or has bad files, or
            ``holdout`` is not in [0, number of train images).
    """
    info = find_info(name)
    if not 0 <= holdout < info.train:
        raise UserError(
            f"cannot hold out {holdout} of the {info.train} train images of {name}; "
            f"expected 0 to {info.train - 1}"
        )
    if name == catalog.DIGITS.name:
        train, test = _digits()
        splits, source = Splits(train, None, test), "scikit-learn's load_digits"
        digest = content_hash(train, test)
    elif name in mnist.IDX_SETS:
        found, source = mnist.find(mnist.IDX_SETS[name], data_root, progress)
        train = _images(found[mnist.TRAIN_IMAGES], found[mnist.TRAIN_LABELS])
        test = _images(found[mnist.TEST_IMAGES], found[mnist.TEST_LABELS])
        splits, digest = Splits(train, None, test), content_hash(train, test)
    else:
        if name in ORIGINALS:
            original = ORIGINALS[name](data_root, progress)
        else:
            original = folders.find(name)
        mapped = arrays.mapped(original, progress)
        splits, source, digest = mapped.splits, str(original.folder), mapped.content_hash
    if holdout:
        train, validation = hold_out(splits.train, holdout)
        splits = Splits(train, validation, splits.test)
    return Dataset(info, splits, digest, source)


def located(name: str, data_root: Path | None) -> tuple[str, str]:
    """Say where a data set of the catalog is, without reading or downloading it.

    Args:
        name: A name in ``CATALOG``.
        data_root: As for ``load``.

    Returns:
        The folder, or ``""`` if it is not here; and how it is got.

    Raises:
        UserError: The user's root is not a folder.
    """
    if name == catalog.DIGITS.name:
        return "scikit-learn", "it needs no download"
    if name in mnist.IDX_SETS:
        wanted = mnist.IDX_SETS[name]
        folder = mnist.located(wanted, data_root)
        how = f"downloaded when it is first used, {wanted.megabytes:g} MB"
    else:
        find, how = _PLACES[name]
        folder = find(data_root)
    return str(folder or ""), how


def _digits() -> tuple[Images, Images]:
    """The digits in their fixed stratified split: 1437 train and 360 test images."""
    from sklearn.datasets import load_digits  # here because the import takes seconds

    bundle = load_digits()
    values = bundle.images.astype(np.int64)
    pixels = (values * 255 + DIGITS_WHITE // 2) // DIGITS_WHITE  # rounded to nearest
    enlarged = pixels.repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2)
    everything = _images(enlarged.astype(np.uint8), bundle.target.astype(np.uint8))
    return split(everything, catalog.DIGITS.test)


def _images(pixels: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Images:
    return Images(torch.from_numpy(pixels).unsqueeze(1), torch.from_numpy(labels).long())
