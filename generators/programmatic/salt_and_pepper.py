"""Salt and pepper: white and black pixels strewn over a plain background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dpbench.core.images import ImageSpec


@dataclass(frozen=True)
class SaltAndPepper:
    """Impulse noise on a plain colour.

    Per image, a fraction p ~ U(p_min, p_max) and a background colour, uniform in [1, 254] per
    channel, are drawn. Each pixel is then, independently, with probability p/2 white, with
    probability p/2 black (in all channels at once), and the background otherwise. The background
    is random, not mid-grey, so that images differ at coarse scales too; it is never quite black
    or white, so that the strewn pixels can be told from it.

    Attributes:
        p_min: Smallest expected fraction of strewn pixels.
        p_max: Largest expected fraction.
    """

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "white and black pixels strewn over a plain colour"
    labelled: ClassVar[bool] = False

    p_min: float = 0.01
    p_max: float = 0.5

    def draw(self, spec: ImageSpec, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Draw one image for each label, as ``Source``."""
        count = len(labels)
        p = self.p_min + (self.p_max - self.p_min) * torch.rand(count, 1, 1, 1, generator=rng)
        size = (count, spec.channels, 1, 1)
        background = torch.randint(1, 255, size, generator=rng, dtype=torch.uint8)
        uniform = torch.rand(count, 1, spec.height, spec.width, generator=rng)
        pixels = background.expand(count, *spec.shape)
        return pixels.masked_fill(uniform < p, 0).masked_fill(uniform < p / 2, 255)


SOURCE = SaltAndPepper
