"""What a source of programmatic images is."""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch
from torch import Tensor

from dpbench.types import ImageSpec


class Source(Protocol):
    """Draws images from a program: a frozen dataclass whose fields are the program's parameters.

    Every field has a default: a source is chosen by its name alone.

    Attributes:
        summary: One line for lists.
        labelled: Whether an image depends on its label.
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
