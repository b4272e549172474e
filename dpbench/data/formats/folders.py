"""The user's own data sets and samples: a folder with a sub-folder of images for each class.

The names of the classes, the number of images and their split into train and test count as public.
A folder without ``train/`` and ``test/`` is split by dpbench: a tenth, stratified by class and
chosen by position in the sorted listing, is for testing. Removing an image can then move others
between the splits; with ``train/`` and ``test/``, it changes the train split by that image alone.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from dpbench.core.checks import check_name
from dpbench.core.errors import UserError, described
from dpbench.core.images import Images
from dpbench.core.progress import Progress
from dpbench.data.arrays import LabelledPixels, Original
from dpbench.data.catalog import DatasetInfo
from dpbench.data.formats import layouts, pictures
from dpbench.data.formats.as_shown import size_as_shown
from dpbench.data.formats.layouts import TEST, TRAIN, VALIDATION
from dpbench.data.formats.pictures import Expected, LabelledPath, Picture
from dpbench.data.splits import tested_in_every_class

PREFIX = "imagefolder:"
FORMATS = ("PNG", "JPEG")
CHANNELS = {"L": 1, "RGB": 3}
TEST_PART = 10  # one image in ten is for testing
LONGEST_NAME = 200  # bytes; file systems allow 255 with what is added to it
LARGEST_SIDE = 256  # pixels; no method of private generation is for larger images


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
        name: ``imagefolder:PATH``. The path holds one folder per class, or ``train``, ``test`` and
            perhaps ``val`` with such folders; plain and hidden files beside these are ignored.

    Raises:
        UserError: The path is not such a folder, its name or that of a class cannot be kept in
            records, or its first image is neither grey nor RGB or too large.
    """
    path = name.removeprefix(PREFIX)
    check_name(path, "a folder of images")
    try:
        folder = Path(path).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{name} names no folder ({error}); expected imagefolder:PATH") from None
    if not path or not folder.is_dir():
        raise UserError(
            f"{name} names no folder; expected imagefolder:PATH, with a sub-folder of PNG or JPEG "
            "files for each class"
        )
    check_name(folder.name, "a folder of images")
    if len(folder.name.encode()) > LONGEST_NAME:
        raise UserError(
            f"{folder} has a name of more than {LONGEST_NAME} bytes, which folders of runs are "
            "to be called by: rename it"
        )
    if given := layouts.split_folders(folder):
        classes = layouts.classes_in(folder / given[TRAIN])
        for place in given.values():
            if odd := set(classes) ^ set(layouts.folders_in(folder / place)):
                raise UserError(
                    f"{folder}: {TRAIN} and {place} must have the same classes; see {min(odd)!r}"
                )
        splits = {
            split: layouts.rows_of(folder, place, _numbered(classes))
            for split, place in given.items()
        }
        how = f"with {' and '.join(given.values())} as they are given"
    else:
        classes = layouts.classes_in(folder)
        if not classes:
            raise UserError(
                f"{folder} holds no folder; expected one for each class, with its images"
            )
        splits = _split(layouts.rows_of(folder, "", _numbered(classes)), folder)
        how = "about a tenth of them held out for testing"
    size, mode = _first(folder / splits[TRAIN][0][0])
    info = DatasetInfo(
        name=f"{PREFIX}{folder.name}",
        shape=(CHANNELS[mode], size[1], size[0]),
        classes=len(classes),
        class_names=tuple(classes),
        train=len(splits[TRAIN]),
        test=len(splits[TEST]),
        validation=len(splits.get(VALIDATION, ())),
        description=f"a folder of images, {how}",
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
    expected = Expected(FORMATS, (width, height), (seen.mode,), as_shown=True)

    def decode(split: str) -> Iterator[LabelledPixels]:
        found = (Picture.read(seen.folder / path, label) for path, label in seen.splits[split])
        return pictures.decode(found, expected)

    files = [path for rows in seen.splits.values() for path, _ in rows]
    # the labels follow from the paths, which are part of the cache's key
    return Original(seen.info, seen.folder, files, "a folder of images, as shown", decode)


def samples(folder: Path, info: DatasetInfo, most: int, progress: Progress) -> Images:
    """Decode samples of a data set from a folder.

    Args:
        folder: Holds a folder of images for each class, or for some classes, named as
            ``layouts.labels_of_samples`` says; plain and hidden files beside these are ignored.
        info: The data set that the samples imitate.
        most: Largest number of samples.
        progress: Receives progress updates of decoding.

    Raises:
        UserError: A folder is named after no class, there are too many images, or an image has
            another shape than the data set's.
    """
    rows = layouts.rows_of(folder, "", layouts.labels_of_samples(folder, info))
    if len(rows) > most:
        raise UserError(f"{folder} holds {len(rows):,} images; expected at most {most:,}")
    channels, height, width = info.shape
    modes = tuple(mode for mode, count in CHANNELS.items() if count == channels)
    expected = Expected(FORMATS, (width, height), modes, as_shown=True)
    parts = []
    with progress.task(f"decode {folder.name}", len(rows), "images") as task:
        found = (Picture.read(folder / path, label) for path, label in rows)
        for part in pictures.decode(found, expected):
            parts.append(part)
            task.advance(len(part[0]))
    pixels, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels))


def _numbered(classes: Sequence[str]) -> dict[str, int]:
    return {kind: label for label, kind in enumerate(classes)}


def _split(rows: list[LabelledPath], folder: Path) -> dict[str, list[LabelledPath]]:
    if len(rows) < TEST_PART:
        raise UserError(
            f"{folder} holds {len(rows)} images; expected at least {TEST_PART}, a tenth of which "
            "is for testing, or folders train and test"
        )
    labels = torch.tensor([label for _, label in rows])
    tested = set(tested_in_every_class(labels, len(rows) // TEST_PART).tolist())
    return {
        TRAIN: [row for index, row in enumerate(rows) if index not in tested],
        TEST: [row for index, row in enumerate(rows) if index in tested],
    }


def _first(file: Path) -> tuple[tuple[int, int], str]:
    """Size (width, height) and mode of the first image, which all others must share."""
    content = Picture.read(file, 0).content
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            size, mode = image.size, image.mode
            small = max(size) <= LARGEST_SIDE
            if small:
                size = size_as_shown(image)
    except Exception as error:  # a bad file may raise anything
        reason = "no such image" if isinstance(error, UnidentifiedImageError) else described(error)
        raise UserError(f"{file} is no intact PNG or JPEG file ({reason})") from None
    if mode not in CHANNELS:
        raise UserError(
            f"{file} has mode {mode}; expected L (grey) or RGB, 8 bits each: convert all images"
        )
    if not small:
        raise UserError(
            f"{file} has {size[0]}x{size[1]} pixels; expected at most {LARGEST_SIDE} on a side: "
            "resize all images"
        )
    return size, mode
