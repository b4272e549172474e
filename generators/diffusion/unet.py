"""The DDPM++ U-Net of DPDM, optionally on patches.

Song et al. 2021 (arXiv 2011.13456), with BigGAN-style up and down blocks, as configured in the
DPDM code: 1.75M parameters at 28 pixels with the defaults. ``patch`` folds patch x patch pixels
into channels first (space to depth), which makes a network small and fast enough for a CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (its customary name)
from torch import Tensor, nn

from dpbench.errors import UserError
from dpbench.types import ImageSpec


@dataclass(frozen=True)
class UNetSettings:
    """Size of the network.

    Attributes:
        channels: Of the first level.
        channel_mult: Factor of ``channels`` for each level; every level halves the resolution.
        blocks: Residual blocks at each level.
        attention_resolutions: Where attention follows a block (height after patching).
        patch: Pixels on the side of a patch.
    """

    channels: int = 32
    channel_mult: tuple[int, ...] = (1, 2, 2)
    blocks: int = 2
    attention_resolutions: tuple[int, ...] = (7,)
    patch: int = 1

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UserError: A value is out of its range.
        """
        if self.channels < 4 or self.channels % 4:
            raise UserError(f"channels must be a multiple of 4, got {self.channels}")
        if not self.channel_mult or min(self.channel_mult) < 1:
            raise UserError(
                f"channel_mult must be one factor or more, each at least 1, got {self.channel_mult}"
            )
        for name in ("blocks", "patch"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")

    def check(self, spec: ImageSpec) -> None:
        """Hold that images of this shape can be halved at every level.

        Raises:
            UserError: They cannot.
        """
        factor = self.patch * 2 ** (len(self.channel_mult) - 1)
        if spec.height % factor or spec.width % factor:
            raise UserError(
                f"images of {spec.height}x{spec.width} cannot be cut into {self.patch}-pixel "
                f"patches and halved {len(self.channel_mult) - 1} times: choose patch and "
                f"channel_mult so that patch * 2^(levels - 1) = {factor} divides the size"
            )


def _scaled_uniform_(weight: Tensor, scale: float = 1.0) -> None:
    """DDPM's initialisation: variance scaling, fan average, uniform; zero scale means 1e-10."""
    fan_out, fan_in = weight.shape[0], weight.shape[1]
    receptive = math.prod(weight.shape[2:])
    variance = max(scale, 1e-10) / ((fan_in + fan_out) * receptive / 2)
    nn.init.uniform_(weight, -math.sqrt(3 * variance), math.sqrt(3 * variance))


def _conv(inputs: int, outputs: int, kernel: int, scale: float = 1.0) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    _scaled_uniform_(conv.weight.data, scale)
    nn.init.zeros_(conv.bias.data)  # type: ignore[union-attr]
    return conv


def _linear(inputs: int, outputs: int) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    _scaled_uniform_(linear.weight.data)
    nn.init.zeros_(linear.bias.data)
    return linear


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU, convolution, twice, with the embedding added between.

    Args:
        inputs: Channels.
        outputs: Channels.
        embedding: Width of the embedding.
        resample: -1 halves the resolution (mean), 1 doubles it (nearest), 0 keeps it.
    """

    def __init__(self, inputs: int, outputs: int, embedding: int, resample: int = 0) -> None:
        """Build the layers."""
        super().__init__()
        self.resample = resample
        self.norm1 = _norm(inputs)
        self.conv1 = _conv(inputs, outputs, 3)
        self.embed = _linear(embedding, outputs)
        self.norm2 = _norm(outputs)
        self.conv2 = _conv(outputs, outputs, 3, scale=0)
        straight = inputs == outputs and not resample
        self.skip = nn.Identity() if straight else _conv(inputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """``(B, inputs, H, W)`` and ``(B, embedding)`` to ``(B, outputs, H', W')``."""
        h = F.silu(self.norm1(x))
        if self.resample < 0:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        elif self.resample > 0:
            h = F.interpolate(h, scale_factor=2.0)
            x = F.interpolate(x, scale_factor=2.0)
        h = self.conv1(h) + self.embed(F.silu(embedding))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        result: Tensor = (self.skip(x) + h) / math.sqrt(2)
        return result


class SelfAttention(nn.Module):
    """One head of self-attention over positions.

    Args:
        channels: In and out.
    """

    def __init__(self, channels: int) -> None:
        """Build the layers."""
        super().__init__()
        self.norm = _norm(channels)
        self.query_key_value = _conv(channels, 3 * channels, 1)
        # three projections in one; initialised as if each were its own
        for part in self.query_key_value.weight.data.chunk(3):
            _scaled_uniform_(part, 0.1)
        self.out = _conv(channels, channels, 1, scale=0)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, channels, H, W)`` to the same."""
        q, k, v = self.query_key_value(self.norm(x)).flatten(2).chunk(3, dim=1)
        weights = (q.transpose(1, 2) @ k / math.sqrt(q.shape[1])).softmax(dim=2)
        h = (v @ weights.transpose(1, 2)).view_as(x)
        result: Tensor = (x + self.out(h)) / math.sqrt(2)
        return result


class _Attended(nn.Module):
    """A residual block followed by attention."""

    def __init__(self, block: ResidualBlock, channels: int) -> None:
        super().__init__()
        self.block = block
        self.attention = SelfAttention(channels)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        result: Tensor = self.attention(self.block(x, embedding))
        return result


def _part(
    inputs: int, outputs: int, embedding: int, resample: int = 0, attend: bool = False
) -> nn.Module:
    block = ResidualBlock(inputs, outputs, embedding, resample)
    return _Attended(block, outputs) if attend else block


class UNet(nn.Module):
    """A class-conditional U-Net.

    Args:
        spec: Shape of the images.
        classes: Number of classes; label ``classes`` is the null class.
        settings: Size of the network.

    Raises:
        UserError: The images cannot be halved at every level.
    """

    def __init__(self, spec: ImageSpec, classes: int, settings: UNetSettings) -> None:
        """Build the layers."""
        super().__init__()
        settings.check(spec)
        width, levels = settings.channels, len(settings.channel_mult)
        pixels = spec.channels * settings.patch**2
        resolution = spec.height // settings.patch
        self.frequencies = width // 2
        self.patch = settings.patch
        self.label = nn.Embedding(classes + 1, width)
        self.embed1 = _linear(width, 4 * width)
        self.embed2 = _linear(4 * width, 4 * width)
        self.first = _conv(pixels, width, 3)

        self.down = nn.ModuleList()
        skips, channels = [width], width
        for level, mult in enumerate(settings.channel_mult):
            attend = resolution >> level in settings.attention_resolutions
            for _ in range(settings.blocks):
                self.down.append(_part(channels, mult * width, 4 * width, attend=attend))
                channels = mult * width
                skips.append(channels)
            if level + 1 < levels:
                self.down.append(_part(channels, channels, 4 * width, resample=-1))
                skips.append(channels)

        self.middle1 = _part(channels, channels, 4 * width, attend=True)
        self.middle2 = _part(channels, channels, 4 * width)

        self.up = nn.ModuleList()
        self.takes_skip: list[bool] = []
        for level, mult in reversed(list(enumerate(settings.channel_mult))):
            attend = resolution >> level in settings.attention_resolutions
            for block in range(settings.blocks + 1):
                last = block == settings.blocks
                inputs = channels + skips.pop()
                channels = mult * width
                self.up.append(_part(inputs, channels, 4 * width, attend=attend and last))
                self.takes_skip.append(True)
            if level:
                self.up.append(_part(channels, channels, 4 * width, resample=1))
                self.takes_skip.append(False)

        self.last_norm = _norm(channels)
        self.last = _conv(channels, pixels, 3, scale=0)

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor) -> Tensor:
        """Apply the network.

        Args:
            x: ``(B, C, H, W)``.
            noise_level: ``(B,)``, c_noise.
            labels: ``(B,)``, int64 in [0, classes].

        Returns:
            ``(B, C, H, W)``.
        """
        embedding = self._position(noise_level) + self.label(labels)
        embedding = self.embed2(F.silu(self.embed1(embedding)))
        h = self.first(F.pixel_unshuffle(x, self.patch))
        skips = [h]
        for part in self.down:
            h = part(h, embedding)
            skips.append(h)
        h = self.middle2(self.middle1(h, embedding), embedding)
        for takes_skip, part in zip(self.takes_skip, self.up, strict=True):
            if takes_skip:
                h = torch.cat([h, skips.pop()], dim=1)
            h = part(h, embedding)
        h = self.last(F.silu(self.last_norm(h)))
        return F.pixel_shuffle(h, self.patch)

    def _position(self, noise_level: Tensor) -> Tensor:
        """Sinusoidal embedding (Ho et al. 2020), ``(B,) -> (B, channels)``."""
        steps = torch.arange(self.frequencies, device=noise_level.device)
        rates = torch.exp(-math.log(10000) * steps / (self.frequencies - 1))
        angles = noise_level[:, None] * rates
        return torch.cat([angles.sin(), angles.cos()], dim=1)
