"""The U-Nets of DDPM (Ho et al. 2020, arXiv 2006.11239) and ADM (arXiv 2105.05233).

Ghalebikesabi et al. 2023 name both, the second by Dhariwal and Nichol 2021: resolutions change by a
convolution, attention follows every block of its resolutions on both ways, labels are embedded as
wide as the hidden time embedding. DDPM adds the embedding in each block and has the two sizes that
the paper states: 80.39M parameters (stated 80.4M) at 32x32 RGB, and 4.24M (stated 4.2M) at 28x28
grey, where the stated attention resolution 16 never occurs (attention at 14 would make it 4.44M).
Adaptive GroupNorm, ADM's, which the paper's text names, makes 86.15M and 4.55M of them.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch.nn.functional as F  # noqa: N812 (its customary name)
from torch import Tensor, nn

from .layers import Attended, ResidualBlock, SelfAttention, conv, linear, sinusoidal
from .unet import UNet

# Channels of an attention head, as in table 3 of Ghalebikesabi et al.; their text says 16.
HEAD_CHANNELS = 64


class StepAndLabel(nn.Module):
    """The position of the time step through two layers, plus the label's embedding.

    Args:
        classes: Number of classes; there is no null class.
        width: Width of the position's embedding; the result is four times as wide.
    """

    def __init__(self, classes: int, width: int) -> None:
        """Build the layers."""
        super().__init__()
        self.width = width
        self.first = linear(width, 4 * width)
        self.second = linear(4 * width, 4 * width)
        self.label = nn.Embedding(classes, 4 * width)

    def forward(self, step: Tensor, labels: Tensor) -> Tensor:
        """``(B,)`` twice to ``(B, 4 * width)``."""
        position = self.second(F.silu(self.first(sinusoidal(step, self.width))))
        result: Tensor = position + self.label(labels)
        return result


class Resampling(nn.Module):
    """A convolution that halves or doubles the resolution and ignores the embedding.

    Args:
        channels: Channels of input and output.
        up: Whether to double the resolution (nearest) rather than to halve it (stride 2).
    """

    def __init__(self, channels: int, up: bool) -> None:
        """Build the layer."""
        super().__init__()
        self.up = up
        self.conv = conv(channels, channels, 3, stride=1 if up else 2)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """``(B, channels, H, W)`` to ``(B, channels, H', W')``."""
        result: Tensor = self.conv(F.interpolate(x, scale_factor=2.0) if self.up else x)
        return result


class DDPMUNet(UNet):
    """DDPM's U-Net, which adds the embedding in each block."""

    attends_to_all: ClassVar[bool] = True
    adaptive: ClassVar[bool] = False

    def _embedding(self, classes: int, width: int) -> nn.Module:
        return StepAndLabel(classes, width)

    def _block(self, inputs: int, outputs: int, embedding: int, attend: bool) -> nn.Module:
        norms = self._norm(inputs), self._norm(outputs)
        block = ResidualBlock(norms, embedding, adaptive=self.adaptive)
        if not attend:
            return block
        heads = outputs // HEAD_CHANNELS if outputs % HEAD_CHANNELS == 0 else 1
        return Attended(block, SelfAttention(self._norm(outputs), heads))

    def _halved(self, channels: int, embedding: int) -> nn.Module:
        return Resampling(channels, up=False)

    def _doubled(self, channels: int, embedding: int) -> nn.Module:
        return Resampling(channels, up=True)

    def _norm(self, channels: int) -> nn.GroupNorm:
        """32 groups, or fewer in networks so narrow that a group would be a single channel."""
        return nn.GroupNorm(math.gcd(32, channels // 2), channels, eps=1e-6)


class ADMUNet(DDPMUNet):
    """The same with ADM's adaptive GroupNorm: the embedding scales and shifts each block."""

    adaptive: ClassVar[bool] = True


EmbeddingName = Literal["adaptive", "additive"]
BY_EMBEDDING: dict[EmbeddingName, type[DDPMUNet]] = {"adaptive": ADMUNet, "additive": DDPMUNet}
