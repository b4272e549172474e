"""The layers of the U-Nets, all initialised as DDPM's (Ho et al. 2020)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 (its customary name)
from torch import Tensor, nn


def _scaled_uniform_(weight: Tensor, scale: float = 1.0) -> None:
    """DDPM's initialisation: variance scaling, fan average, uniform; zero scale means 1e-10."""
    fan_out, fan_in = weight.shape[0], weight.shape[1]
    receptive = math.prod(weight.shape[2:])
    variance = max(scale, 1e-10) / ((fan_in + fan_out) * receptive / 2)
    nn.init.uniform_(weight, -math.sqrt(3 * variance), math.sqrt(3 * variance))


def conv(inputs: int, outputs: int, kernel: int, scale: float = 1.0, stride: int = 1) -> nn.Conv2d:
    """A convolution padded to keep the resolution, which only ``stride`` divides."""
    made = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)
    _scaled_uniform_(made.weight.data, scale)
    nn.init.zeros_(made.bias.data)  # type: ignore[union-attr]
    return made


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer."""
    made = nn.Linear(inputs, outputs)
    _scaled_uniform_(made.weight.data)
    nn.init.zeros_(made.bias.data)
    return made


def sinusoidal(noise_level: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding (Ho et al. 2020) of noise levels, ``(B,)`` to ``(B, width)``."""
    steps = torch.arange(width // 2, device=noise_level.device)
    rates = torch.exp(-math.log(10000) * steps / (width // 2 - 1))
    angles = noise_level[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class ResidualBlock(nn.Module):
    """Twice GroupNorm, SiLU and convolution, with an embedding between, beside a skip connection.

    Args:
        norms: Two normalisations, of the input's channels and of the output's.
        embedding: Width of the embedding.
        resample: -1 halves the resolution (mean), 1 doubles it (nearest), 0 keeps it.
        adaptive: Whether the embedding scales and shifts what the second GroupNorm returns, rather
            than being added to its input.
        damping: Divisor of the sum of skip connection and residual.
    """

    def __init__(
        self,
        norms: tuple[nn.GroupNorm, nn.GroupNorm],
        embedding: int,
        resample: int = 0,
        adaptive: bool = False,
        damping: float = 1.0,
    ) -> None:
        """Build the layers."""
        super().__init__()
        self.resample, self.adaptive, self.damping = resample, adaptive, damping
        inputs, outputs = (norm.num_channels for norm in norms)
        self.norm1 = norms[0]
        self.conv1 = conv(inputs, outputs, 3)
        self.embed = linear(embedding, 2 * outputs if adaptive else outputs)
        self.norm2 = norms[1]
        self.conv2 = conv(outputs, outputs, 3, scale=0)
        straight = inputs == outputs and not resample
        self.skip = nn.Identity() if straight else conv(inputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """``(B, inputs, H, W)`` and ``(B, embedding)`` to ``(B, outputs, H', W')``."""
        h = F.silu(self.norm1(x))
        if self.resample < 0:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        elif self.resample > 0:
            h = F.interpolate(h, scale_factor=2.0)
            x = F.interpolate(x, scale_factor=2.0)
        h = self.conv1(h)
        embedded = self.embed(F.silu(embedding))[:, :, None, None]
        if self.adaptive:
            scale, shift = embedded.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + embedded)
        result: Tensor = (self.skip(x) + self.conv2(F.silu(h))) / self.damping
        return result


class SelfAttention(nn.Module):
    """Self-attention over positions.

    Args:
        norm: Normalisation of the input, which has as many channels.
        heads: Number of heads.
        scale: Scale of the initial projections.
        damping: Divisor of the sum of input and output.
    """

    def __init__(
        self, norm: nn.GroupNorm, heads: int = 1, scale: float = 1.0, damping: float = 1.0
    ) -> None:
        """Build the layers."""
        super().__init__()
        self.heads, self.damping = heads, damping
        channels = norm.num_channels
        self.norm = norm
        self.query_key_value = conv(channels, 3 * channels, 1)
        # three projections in one; initialised as if each were its own
        for part in self.query_key_value.weight.data.chunk(3):
            _scaled_uniform_(part, scale)
        self.out = conv(channels, channels, 1, scale=0)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, channels, H, W)`` to the same shape."""
        projected = self.query_key_value(self.norm(x)).flatten(2)
        q, k, v = projected.unflatten(1, (3, self.heads, -1)).unbind(1)
        weights = (q.mT @ k / math.sqrt(q.shape[2])).softmax(dim=3)
        h = (v @ weights.mT).reshape(x.shape)
        result: Tensor = (x + self.out(h)) / self.damping
        return result


class Attended(nn.Module):
    """A residual block followed by attention.

    Args:
        block: Residual block.
        attention: Attention over its output.
    """

    def __init__(self, block: ResidualBlock, attention: SelfAttention) -> None:
        """Keep the parts."""
        super().__init__()
        self.block = block
        self.attention = attention

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """The block's shapes."""
        result: Tensor = self.attention(self.block(x, embedding))
        return result
