"""Images, their shapes, dtypes and ranges.

This module imports no torch at run time, so that records can be read without it.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

HASHED_AT_ONCE = 4096  # images, so that a mapped data set is not read into memory as a whole

# dtype of a network's activations; weights and everything that privacy rests on are float32
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class ImageSpec:
    """The shape of one image.

    Attributes:
        channels: 1 for grey, 3 for RGB.
        height: Height, pixels.
        width: Width, pixels.
    """

    channels: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(channels, height, width)``."""
        return (self.channels, self.height, self.width)

    def shrunk(self, factor: int) -> tuple[int, int]:
        """Height and width divided by ``factor``, rounded up."""
        return math.ceil(self.height / factor), math.ceil(self.width / factor)


@dataclass(frozen=True)
class Images:
    """Labelled images, in the form in which all parts of the project exchange them.

    Attributes:
        pixels: ``(N, C, H, W)``, uint8, in [0, 255].
        labels: ``(N,)``, int64, in [0, classes).

    Raises:
        ValueError: A shape or dtype is another one.
    """

    pixels: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        """Check shapes and dtypes."""
        # dtypes are compared by name so that this module needs no torch
        if self.pixels.ndim != 4 or str(self.pixels.dtype) != "torch.uint8":
            raise ValueError(
                "images must be uint8 of shape (N, C, H, W); "
                f"got {self.pixels.dtype} of shape {tuple(self.pixels.shape)}"
            )
        if self.labels.ndim != 1 or str(self.labels.dtype) != "torch.int64":
            raise ValueError(
                "labels must be int64 of shape (N,); "
                f"got {self.labels.dtype} of shape {tuple(self.labels.shape)}"
            )
        if len(self.pixels) != len(self.labels):
            raise ValueError(f"{len(self.pixels)} images but {len(self.labels)} labels")

    def __len__(self) -> int:
        """The number of images, N."""
        return len(self.pixels)

    def __getitem__(self, index: slice | Tensor) -> Images:
        """The images at ``index``: a slice or an int64 / bool tensor."""
        return Images(self.pixels[index], self.labels[index])

    @property
    def spec(self) -> ImageSpec:
        """The shape of one image."""
        return ImageSpec(*self.pixels.shape[1:])


@dataclass(frozen=True)
class Splits:
    """The fixed parts of a data set.

    Attributes:
        train: The private images, from which a method may learn.
        validation: Images for tuning: the official validation split, or images held out of
            ``train``; None if there are none.
        test: Images that only evaluators open.
    """

    train: Images
    validation: Images | None
    test: Images


def content_hash(*parts: Images) -> str:
    """SHA-256 of the shape, pixels and labels of each part, as 64 hex digits."""
    digest = hashlib.sha256()
    for images in parts:
        # the shape as well, because the same bytes may be arranged in another way
        digest.update(str(tuple(images.pixels.shape)).encode())
        for start in range(0, len(images), HASHED_AT_ONCE):
            some = images.pixels[start : start + HASHED_AT_ONCE]
            digest.update(some.contiguous().numpy().data)
        digest.update(images.labels.contiguous().numpy().astype("<i8").data)
    return digest.hexdigest()
