"""The user's own data sets and samples: a folder with a sub-folder of images for each class.

The names of the classes, the number of images and their split into train and test count as public.
A folder without ``train/`` and ``test/`` is split by dpbench: a tenth, stratified by class and
chosen by position in the sorted listing, is for testing. Removing an image can then move others
between the splits; with ``train/`` and ``test/``, it changes the train split by that image alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dpbench.core.errors import UserError, described
from dpbench.core.files import safe_name
from dpbench.core.images import Images
from dpbench.core.progress import Progress
from dpbench.data.arrays import LabelledPixels, Original
from dpbench.data.catalog import DatasetInfo
from dpbench.data.formats import pictures
from dpbench.data.formats.pictures import Expected, LabelledPath, Picture
from dpbench.data.stratified import fixed_stratified_order

PREFIX = "imagefolder:"
FORMATS = ("PNG", "JPEG")
SUFFIXES = (".png", ".jpg", ".jpeg")
CHANNELS = {"L": 1, "RGB": 3}
TEST_PART = 10  # one image in ten is for testing


@dataclass(frozen=True)
class ImageFolder:
    """A folder that was listed; of its images only the first was opened.

    Attributes:
        info: Derived from the listing and the first image.
        folder: Absolute path of the folder.
        mode: Pillow's mode of the images.
        splits: Path in ``folder`` and label of each image, by split.
    """

    info: DatasetInfo
    folder: Path
    mode: str
    splits: Mapping[str, Sequence[LabelledPath]]


def look(name: str) -> ImageFolder:
    """List a folder of images and open the first one.

    Args:
        name: ``imagefolder:PATH``. The path holds one folder per class, or ``train`` and ``test``
            with such folders; plain and hidden files beside these are ignored.

    Raises:
        UserError: The path is not such a folder, or its first image is neither grey nor RGB.
    """
    folder = Path(name.removeprefix(PREFIX)).expanduser().resolve()
    if not name.removeprefix(PREFIX) or not folder.is_dir():
        raise UserError(
            f"{name} names no folder; expected imagefolder:PATH, with a sub-folder of PNG or JPEG "
            "files for each class"
        )
    if _folders(folder / "train") and _folders(folder / "test"):
        classes = _folders(folder / "train")
        if (tested := _folders(folder / "test")) != classes:
            odd = min(set(classes) ^ set(tested))
            raise UserError(f"{folder}: train and test must have the same classes; see {odd!r}")
        splits = {split: _rows(folder, split, _numbered(classes)) for split in ("train", "test")}
    else:
        classes = _folders(folder)
        if not classes:
            raise UserError(
                f"{folder} holds no folder; expected one for each class, with its images"
            )
        splits = _split(_rows(folder, "", _numbered(classes)), folder)
    size, mode = _first(folder / splits["train"][0][0])
    info = DatasetInfo(
        name=f"{PREFIX}{folder.name}",
        shape=(CHANNELS[mode], size[1], size[0]),
        classes=len(classes),
        class_names=tuple(classes),
        train=len(splits["train"]),
        test=len(splits["test"]),
        description="a folder of images",
    )
    return ImageFolder(info, folder, mode, splits)


def find(name: str) -> Original:
    """Find the images of a folder; they are decoded later.

    Args:
        name: ``imagefolder:PATH``.

    Raises:
        UserError: As for ``look``.
    """
    seen = look(name)
    _, height, width = seen.info.shape
    expected = Expected(FORMATS, (width, height), (seen.mode,))

    def decode(split: str) -> Iterator[LabelledPixels]:
        found = (Picture.read(seen.folder / path, label) for path, label in seen.splits[split])
        return pictures.decode(found, expected)

    files = [path for rows in seen.splits.values() for path, _ in rows]
    # the labels follow from the paths, which are part of the cache's key
    return Original(seen.info, seen.folder, files, "a folder of images", decode)


def samples(folder: Path, info: DatasetInfo, progress: Progress) -> Images:
    """Decode samples of a data set from a folder.

    Args:
        folder: Holds a folder of images for each class, or for some classes; plain and hidden files
            beside these are ignored. Either all folders are named after classes (characters that
            file systems do not allow may be ``-``), or all by the labels of classes.
        info: The data set that the samples imitate.
        progress: Receives progress updates of decoding.

    Raises:
        UserError: A folder is named after no class, or an image has another shape than the data
            set's.
    """
    rows = _rows(folder, "", _labels(folder, info))
    channels, height, width = info.shape
    modes = tuple(mode for mode, count in CHANNELS.items() if count == channels)
    parts = []
    with progress.task(f"decode {folder.name}", len(rows), "images") as task:
        found = (Picture.read(folder / path, label) for path, label in rows)
        for part in pictures.decode(found, Expected(FORMATS, (width, height), modes)):
            parts.append(part)
            task.advance(len(part[0]))
    pixels, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels))


def _labels(folder: Path, info: DatasetInfo) -> dict[str, int]:
    """The label of each folder of samples, by the folder's name."""
    kinds = _folders(folder)
    if not kinds:
        raise UserError(f"{folder} holds no folder; expected one for each class of {info.name}")
    known = {safe_name(name): label for label, name in enumerate(info.class_names)}
    by_name = {kind: known.get(safe_name(kind)) for kind in kinds}
    by_number = {kind: _number(kind, info.classes) for kind in kinds}
    for labels in (by_name, by_number):
        found = {kind: label for kind, label in labels.items() if label is not None}
        if len(found) == len(kinds):
            return found
    odd = [kind for kind in kinds if by_name[kind] is None and by_number[kind] is None]
    raise UserError(
        f"{folder} has {', '.join(odd) or 'names and numbers together'}; expected folders named "
        f"after the classes of {info.name} ({', '.join(known)}), or 0 to {info.classes - 1}"
    )


def _number(kind: str, classes: int) -> int | None:
    """The label that a folder's name spells as a number, or None."""
    if not (kind.isascii() and kind.isdecimal() and int(kind) < classes):
        return None
    return int(kind)


def _entries(folder: Path) -> list[str]:
    """Names in a folder that are not hidden, sorted; empty if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))  # noqa: PTH208


def _folders(folder: Path) -> list[str]:
    return [name for name in _entries(folder) if (folder / name).is_dir()]


def _numbered(classes: Sequence[str]) -> dict[str, int]:
    return {kind: label for label, kind in enumerate(classes)}


def _rows(folder: Path, split: str, classes: Mapping[str, int]) -> list[LabelledPath]:
    """Path in ``folder`` and label of each image, sorted by class and name."""
    rows = []
    for kind, label in classes.items():
        names = _entries(folder / split / kind)
        if not names:
            raise UserError(f"{folder / split / kind} holds no image; expected PNG or JPEG files")
        for name in names:
            if not name.lower().endswith(SUFFIXES):
                raise UserError(
                    f"{folder / split / kind / name} is no image by its name; expected "
                    f"{', '.join(SUFFIXES)} files only: convert or remove it"
                )
            rows.append((os.path.join(split, kind, name), label))  # noqa: PTH118
    return rows


def _split(rows: list[LabelledPath], folder: Path) -> dict[str, list[LabelledPath]]:
    if len(rows) < TEST_PART:
        raise UserError(
            f"{folder} holds {len(rows)} images; expected at least {TEST_PART}, a tenth of which "
            "is for testing, or folders train and test"
        )
    order = fixed_stratified_order(torch.tensor([label for _, label in rows])).tolist()
    border = len(rows) - len(rows) // TEST_PART
    chosen = {"train": order[:border], "test": order[border:]}
    return {split: [rows[index] for index in sorted(part)] for split, part in chosen.items()}


def _first(file: Path) -> tuple[tuple[int, int], str]:
    """Size (width, height) and mode of the first image, which all others must share."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            size, mode = image.size, image.mode
    except Exception as error:  # a bad file may raise anything
        raise UserError(f"{file} is no intact PNG or JPEG file ({described(error)})") from None
    if mode not in CHANNELS:
        raise UserError(
            f"{file} has mode {mode}; expected L (grey) or RGB, 8 bits each: convert all images"
        )
    return size, mode
