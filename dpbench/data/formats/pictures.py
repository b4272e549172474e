"""Decode many small PNG and JPEG files."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from dpbench.core.errors import UserError, described
from dpbench.data.arrays import LabelledPixels, Labels, Pixels
from dpbench.parallel.cores import map_on_cores

AT_ONCE = 1024
CPU = torch.device("cpu")

LabelledPath = tuple[str, int]


@dataclass(frozen=True)
class Picture:
    """An encoded image.

    Attributes:
        name: Path or other name, for messages.
        content: The bytes of the file.
        label: Label of the class.
    """

    name: str
    content: bytes
    label: int

    @classmethod
    def read(cls, file: Path, label: int) -> Picture:
        """Read the picture in a file.

        Raises:
            UserError: The file cannot be read.
        """
        try:
            return cls(str(file), file.read_bytes(), label)
        except OSError as error:
            raise UserError(f"{file} cannot be read ({error.strerror})") from None


@dataclass(frozen=True)
class Expected:
    """What all pictures of a data set have in common.

    Attributes:
        formats: Pillow's names of the file formats.
        size: Width and height, pixels.
        modes: Pillow's modes that are allowed.
    """

    formats: tuple[str, ...]
    size: tuple[int, int]
    modes: tuple[str, ...]


def decode(
    pictures: Iterable[Picture],
    expected: Expected,
    prepare: Callable[[Image.Image], Pixels] = np.asarray,
) -> Iterator[LabelledPixels]:
    """Decode pictures on all cores, in order and in batches.

    Args:
        pictures: The pictures; consumed only as fast as they are decoded.
        expected: What all pictures must have in common.
        prepare: Crops, resizes or converts a picture to ``(H, W)`` or ``(H, W, C)``, uint8.

    Returns:
        Pixels ``(n, C, H, W)``, uint8, and labels ``(n,)``, int64.

    Raises:
        UserError: A picture cannot be decoded or is not as expected; names the first such one.
    """

    def one(picture: Picture) -> tuple[Pixels, int]:
        return _decoded(picture, expected, prepare), picture.label

    decoded = map_on_cores(one, pictures, CPU)
    while some := list(itertools.islice(decoded, AT_ONCE)):
        labels: Labels = np.array([label for _, label in some], np.int64)
        yield np.stack([pixels for pixels, _ in some]), labels


def _decoded(
    picture: Picture, expected: Expected, prepare: Callable[[Image.Image], Pixels]
) -> Pixels:
    try:
        with Image.open(io.BytesIO(picture.content), formats=expected.formats) as image:
            # only the header was read so far, so an image of any size can be refused
            found = f"{image.width}x{image.height} pixels of mode {image.mode}"
            right = image.size == expected.size and image.mode in expected.modes
            pixels = prepare(image) if right else None
    except Exception as error:  # a bad file may raise anything
        reason = "no such image" if isinstance(error, UnidentifiedImageError) else described(error)
        raise UserError(
            f"{picture.name} cannot be decoded ({reason}); expected an intact "
            f"{' or '.join(expected.formats)} file: replace it with an intact copy"
        ) from None
    if pixels is None:
        width, height = expected.size
        raise UserError(
            f"{picture.name} has {found}; expected {width}x{height} pixels of mode "
            f"{' or '.join(expected.modes)}, as all images of its set have"
        )
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
