"""The layers of DDPM's U-Net, with the embedding added or, as in ADM, as adaptive GroupNorm.

Ho et al. 2020 (arXiv 2006.11239) and Dhariwal and Nichol 2021 (arXiv 2105.05233), which
Ghalebikesabi et al. 2023 name: resolutions change by a convolution, attention follows every block
of its resolutions on both ways, labels are embedded as wide as the hidden time embedding. With the
embedding added this has the two sizes that the paper states: 80.39M parameters (stated 80.4M) at
32x32 RGB, and 4.24M (stated 4.2M) at 28x28 grey, where the stated attention resolution 16 never
occurs (attention at 14 would make it 4.44M). Adaptive GroupNorm, which its text names, makes
86.15M and 4.55M of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch.nn.functional as F  # noqa: N812 (its customary name)
from torch import Tensor, nn

from .unet import Attended, SelfAttention, conv, linear, sinusoidal

EmbeddingName = Literal["adaptive", "additive"]
# Of an attention head, as in table 3 of Ghalebikesabi et al.; their text says 16.
HEAD_CHANNELS = 64


def _norm(channels: int) -> nn.GroupNorm:
    """32 groups, or fewer in networks so narrow that a group would be a single channel."""
    return nn.GroupNorm(math.gcd(32, channels // 2), channels, eps=1e-6)


class StepAndLabel(nn.Module):
    """The position of the time step through two layers, plus the label's embedding.

    Args:
        classes: Number of classes; there is no null class.
        width: Of the position's embedding; four times as much comes out.
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


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU, convolution, twice, with the embedding between.

    Args:
        inputs: Channels.
        outputs: Channels.
        embedding: Width of the embedding.
        adaptive: Whether the embedding scales and shifts what the second GroupNorm gives, rather
            than being added to what it takes.
    """

    def __init__(self, inputs: int, outputs: int, embedding: int, adaptive: bool) -> None:
        """Build the layers."""
        super().__init__()
        self.adaptive = adaptive
        self.norm1 = _norm(inputs)
        self.conv1 = conv(inputs, outputs, 3)
        self.embed = linear(embedding, 2 * outputs if adaptive else outputs)
        self.norm2 = _norm(outputs)
        self.conv2 = conv(outputs, outputs, 3, scale=0)
        self.skip = nn.Identity() if inputs == outputs else conv(inputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """``(B, inputs, H, W)`` and ``(B, embedding)`` to ``(B, outputs, H, W)``."""
        h = self.conv1(F.silu(self.norm1(x)))
        embedded = self.embed(F.silu(embedding))[:, :, None, None]
        if self.adaptive:
            scale, shift = embedded.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + embedded)
        result: Tensor = self.skip(x) + self.conv2(F.silu(h))
        return result


class Resampling(nn.Module):
    """A convolution to half or twice the resolution, whatever the embedding.

    Args:
        channels: In and out.
        up: Whether to twice the resolution (nearest) rather than to half of it (stride 2).
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


@dataclass(frozen=True)
class DDPMLayers:
    """The layers of DDPM's U-Net: see ``unet.Layers``.

    Attributes:
        embedding_by: ``adaptive`` or ``additive``.
    """

    attends_to_all: ClassVar[bool] = True

    embedding_by: EmbeddingName = "adaptive"

    def embedding(self, classes: int, width: int) -> nn.Module:
        """See ``unet.Layers``."""
        return StepAndLabel(classes, width)

    def block(self, inputs: int, outputs: int, embedding: int, attend: bool) -> nn.Module:
        """See ``unet.Layers``."""
        block = ResidualBlock(inputs, outputs, embedding, self.embedding_by == "adaptive")
        if not attend:
            return block
        heads = outputs // HEAD_CHANNELS if outputs % HEAD_CHANNELS == 0 else 1
        return Attended(block, SelfAttention(outputs, _norm(outputs), heads))

    def halved(self, channels: int, embedding: int) -> nn.Module:
        """See ``unet.Layers``."""
        return Resampling(channels, up=False)

    def doubled(self, channels: int, embedding: int) -> nn.Module:
        """See ``unet.Layers``."""
        return Resampling(channels, up=True)

    def norm(self, channels: int) -> nn.GroupNorm:
        """See ``unet.Layers``."""
        return _norm(channels)
