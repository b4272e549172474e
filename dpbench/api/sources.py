"""What a source of public images is."""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch
from torch import Tensor

from dpbench.core.images import Images, ImageSpec
from dpbench.core.progress import Progress

NO_PUBLIC = "none"


class PublicSource(Protocol):
    """Images that are no secret, in the shape of the private ones.

    Attributes:
        name: What the user calls it.
        identity: SHA-256, hexadecimal, of everything that the images depend on but their shape and
            the run's seed.
        classes: Number of its classes; None where its labels mean nothing.
    """

    @property
    def name(self) -> str:
        """See the class."""

    @property
    def identity(self) -> str:
        """See the class."""

    @property
    def classes(self) -> int | None:
        """See the class."""

    def images(self, count: int, progress: Progress, classes: int | None = None) -> Images:
        """Up to ``count`` images: fewer where the source has no more.

        Args:
            count: At least 1; fewer images are a prefix of more.
            progress: Receives progress updates.
            classes: Number of classes that a program draws, if its labels mean something; None for
                as many as the private set has.

        Returns:
            Images of the private set's shape, with labels in [0, classes) where they mean
            something.
        """


class Source(Protocol):
    """Draws images from a program: a frozen dataclass whose fields are the program's parameters.

    Every field has a default: a source is chosen by its name alone.

    Attributes:
        summary: One line for lists.
        labelled: Whether an image depends on its label.

    A built-in one also has a ``version``, raised when the images that it draws change.
    """

    summary: ClassVar[str]
    labelled: ClassVar[bool]

    def draw(self, spec: ImageSpec, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Draw one image for each label.

        Args:
            spec: The shape of one image.
            labels: ``(N,)``, int64, not negative; sources that are not labelled use only N.
            rng: Source of all randomness, on the CPU.

        Returns:
            ``(N, C, H, W)``, uint8, on the CPU.
        """
