"""DDPM++ (Song et al. 2021, arXiv 2011.13456), the network of DPDM.

As configured in the DPDM code, with BigGAN-style up and down blocks: 1.75M parameters at 28 pixels
with the default settings.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch.nn.functional as F  # noqa: N812 (its customary name)
from torch import Tensor, nn

from .layers import Attended, ResidualBlock, SelfAttention, linear, sinusoidal
from .unet import UNet


class LevelAndLabel(nn.Module):
    """Embeds the sum of a noise level's position and a label through two layers.

    Args:
        classes: Number of classes; label ``classes`` is the null class.
        width: Width of the sum; the embedding is four times as wide.
    """

    def __init__(self, classes: int, width: int) -> None:
        """Build the layers."""
        super().__init__()
        self.width = width
        self.label = nn.Embedding(classes + 1, width)
        self.first = linear(width, 4 * width)
        self.second = linear(4 * width, 4 * width)

    def forward(self, noise_level: Tensor, labels: Tensor) -> Tensor:
        """``(B,)`` twice to ``(B, 4 * width)``."""
        embedding = sinusoidal(noise_level, self.width) + self.label(labels)
        result: Tensor = self.second(F.silu(self.first(embedding)))
        return result


class DDPMPP(UNet):
    """DDPM++: residual blocks change the resolution, and sums are damped by sqrt(2)."""

    attends_to_all: ClassVar[bool] = False

    def _embedding(self, classes: int, width: int) -> nn.Module:
        return LevelAndLabel(classes, width)

    def _block(self, inputs: int, outputs: int, embedding: int, attend: bool) -> nn.Module:
        block = self._residual(inputs, outputs, embedding)
        if not attend:
            return block
        return Attended(block, SelfAttention(self._norm(outputs), scale=0.1, damping=math.sqrt(2)))

    def _halved(self, channels: int, embedding: int) -> nn.Module:
        return self._residual(channels, channels, embedding, resample=-1)

    def _doubled(self, channels: int, embedding: int) -> nn.Module:
        return self._residual(channels, channels, embedding, resample=1)

    def _residual(
        self, inputs: int, outputs: int, embedding: int, resample: int = 0
    ) -> ResidualBlock:
        norms = self._norm(inputs), self._norm(outputs)
        return ResidualBlock(norms, embedding, resample, damping=math.sqrt(2))

    def _norm(self, channels: int) -> nn.GroupNorm:
        return nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6)
