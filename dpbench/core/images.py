"""Images, their shapes and measurements of them: dtypes, ranges and units stated once.

This module imports no torch at run time, so that records can be read without it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

# What a network computes in; weights, and all that privacy rests on, are float32 in any case.
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class ImageSpec:
    """The shape of one image.

    Attributes:
        channels: 1 for grey, 3 for RGB.
        height: Pixels.
        width: Pixels.
    """

    channels: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(channels, height, width)``."""
        return (self.channels, self.height, self.width)


@dataclass(frozen=True)
class Images:
    """Labelled images: the form in which images cross every boundary of the project.

    Attributes:
        pixels: ``(N, C, H, W)``, uint8, in [0, 255].
        labels: ``(N,)``, int64, in [0, classes).

    Raises:
        ValueError: A shape or dtype is not as stated.
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
        train: What a generator may learn from: the private set.
        validation: Held out of ``train`` for tuning, or None where ``train`` is the whole
            official train split.
        test: Opened by evaluators only.
    """

    train: Images
    validation: Images | None
    test: Images


@dataclass(frozen=True)
class MetricSpec:
    """What a metric is called and how to read it.

    Attributes:
        name: Its id in records, e.g. ``cas_cnn``. A name that ends in a star stands for one metric
            for each class, configuration or size, with its label, name or number in place of it.
        unit: ``""`` for a pure number, ``"%"``, ``"s"``, ...
        higher_is_better: Which way is up.
        description: One line for people.
    """

    name: str
    unit: str
    higher_is_better: bool
    description: str


@dataclass(frozen=True)
class Measurement:
    """One number, with all that is needed to know what it means.

    Attributes:
        metric: ``MetricSpec.name``.
        value: The number, or None where it could not be had.
        unit: As in the metric's spec.
        higher_is_better: As in the metric's spec.
        n: Number of synthetic images it was computed on.
        split: The real split it read (``train``, ``validation``, ``test``) or ``""``.
        extractor: Id of the feature extractor or classifier, or ``""``.
        reason: Why there is no value; ``""`` exactly when there is one.
        n_real: Number of real images it was computed on.
        seed: Seed of the measurement itself (classifier initialisation, subsets).

    Raises:
        ValueError: A value that is not finite, or a missing value without a reason.
    """

    metric: str
    value: float | None
    unit: str
    higher_is_better: bool
    n: int
    split: str = ""
    extractor: str = ""
    reason: str = ""
    n_real: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Hold that a value is a finite number or comes with a reason for its absence."""
        if self.value is None and not self.reason:
            raise ValueError(f"{self.metric}: a missing value needs a reason")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"{self.metric}: {self.value} is not a measurement; give a reason")
        if self.value is not None and self.reason:
            raise ValueError(f"{self.metric}: has a value and a reason for having none")
