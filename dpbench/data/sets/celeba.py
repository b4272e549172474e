"""CelebA at 32x32, labelled by gender, from its aligned and cropped images.

Images (178x218) are cropped to the central 178x178 and resized to 32x32 by Pillow's Lanczos filter:
the transform ``center-crop`` of ``dataset_tool.py``, by which DPDM (Dockhorn et al., 2022) makes
its ImageNet; its repository does not say how it makes its CelebA. The label is the attribute Male
(1 for 1, 0 for -1), as in DPImageBench; DPDM's own models of CelebA are not class-conditional.

Versions of the JPEG library may decode to different pixels, and so to different content hashes.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from dpbench.core.errors import UserError
from dpbench.core.progress import Progress
from dpbench.core.regular import open_regular, read_regular
from dpbench.data import catalog
from dpbench.data.arrays import LabelledPixels, Original, Pixels
from dpbench.data.catalog import DatasetInfo
from dpbench.data.formats import pictures
from dpbench.data.formats.pictures import MOST_BYTES, Expected, Picture
from dpbench.data.roots import locate, not_found

IMAGES, ZIP = "img_align_celeba", "img_align_celeba.zip"
ATTRIBUTES, PARTITION = "list_attr_celeba.txt", "list_eval_partition.txt"
SPLITS = {"0": "train", "1": "validation", "2": "test"}
MOST_LIST_BYTES = 2**27  # CelebA's own have a fifth of it
LABELS = {"-1": 0, "1": 1}
EXPECTED = Expected(("JPEG",), (178, 218), ("RGB",))
CROP = (0, 20, 178, 198)
RECIPE = "CelebA, Male, central 178x178, Lanczos to 32x32"


GET = (
    f"get {ZIP}, {ATTRIBUTES} and {PARTITION} from "
    "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html, put them in a folder celeba"
)


def located(data_root: Path | None) -> Path | None:
    """The folder that holds CelebA, or None."""
    names = (ATTRIBUTES, PARTITION)
    return locate(catalog.CELEBA.name, ("celeba", "CelebA"), names, data_root)


def find(
    data_root: Path | None, progress: Progress, info: DatasetInfo = catalog.CELEBA
) -> Original:
    """Find CelebA, which its distributors do not let programs download.

    Args:
        data_root: The user's own folder, searched first.
        progress: Not used.
        info: What the files must hold.

    Raises:
        UserError: The data set was not found, or its lists are bad.
    """
    folder = located(data_root)
    if folder is None:
        raise not_found(info.name, GET)
    labels = _labels(folder / ATTRIBUTES)
    splits = _splits(folder / PARTITION, labels)
    zipped = not (folder / IMAGES).is_dir()
    files = [ZIP] if zipped else [f"{IMAGES}/{name}" for names in splits.values() for name in names]

    def decode(split: str) -> Iterator[LabelledPixels]:
        names = splits[split]
        if zipped:
            found = _zipped(folder / ZIP, names, labels)
        else:
            found = (Picture.read(folder / IMAGES / name, labels[name]) for name in names)
        return pictures.decode(found, EXPECTED, _prepared)

    return Original(info, folder, (ATTRIBUTES, PARTITION, *files), RECIPE, decode)


def _prepared(image: Image.Image) -> Pixels:
    return np.asarray(image.crop(CROP).resize((32, 32), Image.Resampling.LANCZOS))


def _zipped(file: Path, names: Iterable[str], labels: Mapping[str, int]) -> Iterator[Picture]:
    try:
        with open_regular(file) as handle, zipfile.ZipFile(handle) as archive:
            for name in names:
                with archive.open(f"{IMAGES}/{name}") as packed:
                    content = packed.read(MOST_BYTES + 1)  # a small entry may unpack to anything
                if len(content) > MOST_BYTES:
                    raise UserError(f"{file}: {name} unpacks to more than {MOST_BYTES:,} bytes")
                yield Picture(f"{file}: {name}", content, labels[name])
    except KeyError as error:
        raise UserError(f"{file}: {error.args[0]}; expected every image of {PARTITION}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{file} is no intact zip file ({error}); expected a whole one") from None


def _labels(file: Path) -> dict[str, int]:
    """The label of each image. Line 1 of the list is their number, line 2 names the attributes."""
    lines = _lines(file)
    names = lines[1].split() if len(lines) > 1 else []
    if "Male" not in names:
        raise UserError(f"{file} has no attribute Male in its second line; expected CelebA's list")
    column = 1 + names.index("Male")
    labels = {}
    for number, line in enumerate(lines[2:], 3):
        fields = line.split()
        if len(fields) != 1 + len(names) or fields[column] not in LABELS:
            raise UserError(
                f"{file}, line {number}, is {line[:40]!r}; expected an image and {len(names)} "
                "attributes of -1 or 1"
            )
        labels[fields[0]] = LABELS[fields[column]]
    return labels


def _splits(file: Path, labels: Mapping[str, int]) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = {split: [] for split in SPLITS.values()}
    for number, line in enumerate(_lines(file), 1):
        name, _, split = line.strip().partition(" ")
        if split not in SPLITS or "/" in name or name.startswith("."):
            raise UserError(
                f"{file}, line {number}, is {line[:40]!r}; expected an image and 0, 1 or 2"
            )
        if name not in labels:
            raise UserError(f"{file} names {name}, which {ATTRIBUTES} does not: get both again")
        splits[SPLITS[split]].append(name)
    return splits


def _lines(file: Path) -> list[str]:
    try:
        return read_regular(file, MOST_LIST_BYTES).decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{file} cannot be read ({error}); expected CelebA's list") from None
