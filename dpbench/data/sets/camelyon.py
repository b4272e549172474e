"""Camelyon17-WILDS at 32x32 (Koh et al., 2021), from the layout of the WILDS package.

Splits are the official ones of WILDS: train is split 0 of the hospitals (centers) 0, 3 and 4,
validation the whole of center 1 and test the whole of center 2, both out of distribution. Split 1
of the train hospitals, 33,560 images for validation in distribution, is left out, as Ghalebikesabi
et al. (2023) do. The label is whether the central 32x32 of the 96x96 pixels contain tumor.

Ghalebikesabi et al. say only "downsampled to 32x32"; here each pixel is the mean of 3x3 pixels,
rounded to nearest. Transparency is dropped, as in WILDS.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from dpbench.core.errors import UserError
from dpbench.core.progress import Progress
from dpbench.core.regular import open_regular
from dpbench.data import catalog
from dpbench.data.arrays import LabelledPixels, Original, Pixels
from dpbench.data.catalog import DatasetInfo
from dpbench.data.formats import pictures
from dpbench.data.formats.pictures import Expected, LabelledPath, Picture
from dpbench.data.roots import locate, not_found

FOLDER, METADATA = "camelyon17_v1.0", "metadata.csv"
COLUMNS = ("patient", "node", "x_coord", "y_coord", "tumor", "center", "split")
VALIDATION_CENTER, TEST_CENTER, TRAIN_CENTERS = "1", "2", ("0", "3", "4")
TRAIN_SPLIT, LEFT_OUT_SPLIT = "0", "1"
EXPECTED = Expected(("PNG",), (96, 96), ("RGB", "RGBA"))
RECIPE = "Camelyon17-WILDS, mean of 3x3"


GET = (
    "get it by wilds.get_dataset('camelyon17', download=True) of the package wilds "
    f"(https://wilds.stanford.edu), which makes a folder {FOLDER},"
)


def located(data_root: Path | None) -> Path | None:
    """The folder that holds Camelyon17-WILDS, or None."""
    return locate(catalog.CAMELYON17.name, (FOLDER, f"wilds/{FOLDER}"), (METADATA,), data_root)


def find(
    data_root: Path | None, progress: Progress, info: DatasetInfo = catalog.CAMELYON17
) -> Original:
    """Find Camelyon17-WILDS; a download of 10 GB is left to the user.

    Args:
        data_root: The user's own folder, searched first.
        progress: Not used.
        info: What the files must hold.

    Raises:
        UserError: The data set was not found, or its metadata are bad.
    """
    folder = located(data_root)
    if folder is None:
        raise not_found(info.name, GET)
    splits = _splits(folder / METADATA)

    def decode(split: str) -> Iterator[LabelledPixels]:
        found = (Picture.read(folder / name, label) for name, label in splits[split])
        return pictures.decode(found, EXPECTED, _prepared)

    files = [name for rows in splits.values() for name, _ in rows]
    return Original(info, folder, (METADATA, *files), RECIPE, decode)


def _prepared(image: Image.Image) -> Pixels:
    # not Pillow's reduce, which is 5/9 too low for some means
    pixels = np.asarray(image.convert("RGB"))
    rows = pixels.reshape(32, 3, 96, 3).sum(1, dtype=np.uint16)
    sums = rows[:, 0::3] + rows[:, 1::3] + rows[:, 2::3]
    means: Pixels = ((sums + 4) // 9).astype(np.uint8)
    return means


def _splits(file: Path) -> dict[str, list[LabelledPath]]:
    """Path and label of each image, by split."""
    splits: dict[str, list[LabelledPath]] = {"train": [], "validation": [], "test": []}
    try:
        with io.TextIOWrapper(open_regular(file), encoding="utf-8", newline="") as lines:
            rows = csv.DictReader(lines)
            if missing := set(COLUMNS) - set(rows.fieldnames or ()):
                raise ValueError(f"it has no column {min(missing)}")
            for row in rows:
                patient, node, x, y, tumor, center, split = (row[column] for column in COLUMNS)
                place = _split_of(center, split)
                if tumor not in ("0", "1") or place is None:
                    raise ValueError(
                        f"line {rows.line_num} has tumor {tumor}, center {center}, split {split}; "
                        "expected tumor 0 or 1, center 0 to 4, split 0 or 1"
                    )
                if not all(map(str.isdecimal, (patient, node, x, y))):
                    # such as "..", which would lead out of the folder
                    raise ValueError(f"line {rows.line_num} has a patch that is not of numbers")
                if place:
                    slide = f"patient_{patient}_node_{node}"
                    name = f"patches/{slide}/patch_{slide}_x_{x}_y_{y}.png"
                    splits[place].append((name, int(tumor)))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{file} is no metadata of Camelyon17-WILDS: {error}") from None
    return splits


def _split_of(center: str, split: str) -> str | None:
    """The split, ``""`` if it is left out, or None if there is no such center or split."""
    if split not in (TRAIN_SPLIT, LEFT_OUT_SPLIT):
        return None
    if center in TRAIN_CENTERS:
        return "train" if split == TRAIN_SPLIT else ""
    return {VALIDATION_CENTER: "validation", TEST_CENTER: "test"}.get(center)
