"""Decode many small PNG and JPEG files."""

from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from dpbench.core.errors import UserError, described
from dpbench.core.regular import read_regular
from dpbench.data.arrays import LabelledPixels, Labels, Pixels
from dpbench.data.formats.as_shown import as_shown, size_as_shown
from dpbench.parallel.cores import map_on_cores

AT_ONCE = 1024
MOST_BYTES = 2**25  # of a file; small images have a thousandth of it
CPU = torch.device("cpu")

# sizes are compared with the expected one before pixels are decoded
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

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
            UserError: The file cannot be read, is no regular file, or is too large for an image.
        """
        return cls(str(file), read_regular(file, MOST_BYTES), label)


@dataclass(frozen=True)
class Expected:
    """What all pictures of a data set have in common.

    Attributes:
        formats: Pillow's names of the file formats.
        size: Width and height, pixels.
        modes: Pillow's modes that are allowed.
        as_shown: Whether what files hold beside pixels is applied or refused, by ``as_shown``.
            Published data sets are decoded without it, as everybody decodes them.
    """

    formats: tuple[str, ...]
    size: tuple[int, int]
    modes: tuple[str, ...]
    as_shown: bool = False


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
            size = image.size
            if expected.as_shown and sorted(size) == sorted(expected.size):
                size = size_as_shown(image)
            found = f"{size[0]}x{size[1]} pixels of mode {image.mode}"
            pixels = None
            if size == expected.size and image.mode in expected.modes:
                shown = (
                    as_shown(image, picture.content, picture.name) if expected.as_shown else image
                )
                pixels = prepare(shown)
    except UserError:
        raise
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
