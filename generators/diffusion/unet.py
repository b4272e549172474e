"""A U-Net, optionally on patches, and the layers of DDPM++, of which DPDM's is made.

DDPM++ is Song et al. 2021 (arXiv 2011.13456), with BigGAN-style up and down blocks, as configured
in the DPDM code: 1.75M parameters at 28 pixels with the defaults. ``patch`` folds patch x patch
pixels into channels first (space to depth), which makes a network small and fast enough for a CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 (its customary name)
from torch import Tensor, nn

from dpbench.core.errors import UserError
from dpbench.core.images import ImageSpec


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


def conv(inputs: int, outputs: int, kernel: int, scale: float = 1.0, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size (but for the stride), initialised as DDPM's."""
    made = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)
    _scaled_uniform_(made.weight.data, scale)
    nn.init.zeros_(made.bias.data)  # type: ignore[union-attr]
    return made


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer, initialised as DDPM's."""
    made = nn.Linear(inputs, outputs)
    _scaled_uniform_(made.weight.data)
    nn.init.zeros_(made.bias.data)
    return made


def sinusoidal(noise_level: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding (Ho et al. 2020), ``(B,)`` to ``(B, width)``."""
    steps = torch.arange(width // 2, device=noise_level.device)
    rates = torch.exp(-math.log(10000) * steps / (width // 2 - 1))
    angles = noise_level[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Layers(Protocol):
    """What a U-Net is made of.

    Embeddings are ``(B, 4 * width)``; blocks and changes of resolution are called with
    ``(B, channels, H, W)`` and an embedding.

    Attributes:
        attends_to_all: Whether attention follows every block on the way up, not only the last one
            of a level.
    """

    attends_to_all: ClassVar[bool]

    def embedding(self, classes: int, width: int) -> nn.Module:
        """From noise levels ``(B,)`` and labels ``(B,)`` to an embedding; ``classes`` is a label.

        The part that belongs to the classes is ``label``, an ``nn.Embedding``.
        """

    def block(self, inputs: int, outputs: int, embedding: int, attend: bool) -> nn.Module:
        """A residual block, followed by attention or not."""

    def halved(self, channels: int, embedding: int) -> nn.Module:
        """To half the resolution."""

    def doubled(self, channels: int, embedding: int) -> nn.Module:
        """To twice the resolution."""

    def norm(self, channels: int) -> nn.GroupNorm:
        """The last normalisation."""


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6)


class LevelAndLabel(nn.Module):
    """DDPM++'s embedding: position of the noise level plus label, through two layers.

    Args:
        classes: Number of classes; label ``classes`` is the null class.
        width: Of what is added; four times as much comes out.
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
        self.conv1 = conv(inputs, outputs, 3)
        self.embed = linear(embedding, outputs)
        self.norm2 = _norm(outputs)
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
        h = self.conv1(h) + self.embed(F.silu(embedding))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        result: Tensor = (self.skip(x) + h) / math.sqrt(2)
        return result


class SelfAttention(nn.Module):
    """Self-attention over positions.

    Args:
        channels: In and out.
        norm: Of what goes in.
        heads: Number of heads.
        scale: Of the initial projections.
        damping: What the sum of input and output is divided by.
    """

    def __init__(
        self,
        channels: int,
        norm: nn.GroupNorm,
        heads: int = 1,
        scale: float = 1.0,
        damping: float = 1.0,
    ) -> None:
        """Build the layers."""
        super().__init__()
        self.heads, self.damping = heads, damping
        self.norm = norm
        self.query_key_value = conv(channels, 3 * channels, 1)
        # three projections in one; initialised as if each were its own
        for part in self.query_key_value.weight.data.chunk(3):
            _scaled_uniform_(part, scale)
        self.out = conv(channels, channels, 1, scale=0)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, channels, H, W)`` to the same."""
        projected = self.query_key_value(self.norm(x)).flatten(2)
        q, k, v = projected.unflatten(1, (3, self.heads, -1)).unbind(1)
        weights = (q.mT @ k / math.sqrt(q.shape[2])).softmax(dim=3)
        h = (v @ weights.mT).reshape(x.shape)
        result: Tensor = (x + self.out(h)) / self.damping
        return result


class Attended(nn.Module):
    """A residual block followed by attention.

    Args:
        block: The block.
        attention: What follows.
    """

    def __init__(self, block: nn.Module, attention: SelfAttention) -> None:
        """Keep both."""
        super().__init__()
        self.block = block
        self.attention = attention

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """As the block."""
        result: Tensor = self.attention(self.block(x, embedding))
        return result


@dataclass(frozen=True)
class DDPMPlusPlus:
    """The layers of DDPM++: see ``Layers``."""

    attends_to_all: ClassVar[bool] = False

    def embedding(self, classes: int, width: int) -> nn.Module:
        """See ``Layers``."""
        return LevelAndLabel(classes, width)

    def block(self, inputs: int, outputs: int, embedding: int, attend: bool) -> nn.Module:
        """See ``Layers``."""
        block = ResidualBlock(inputs, outputs, embedding)
        if not attend:
            return block
        attention = SelfAttention(outputs, _norm(outputs), scale=0.1, damping=math.sqrt(2))
        return Attended(block, attention)

    def halved(self, channels: int, embedding: int) -> nn.Module:
        """See ``Layers``."""
        return ResidualBlock(channels, channels, embedding, resample=-1)

    def doubled(self, channels: int, embedding: int) -> nn.Module:
        """See ``Layers``."""
        return ResidualBlock(channels, channels, embedding, resample=1)

    def norm(self, channels: int) -> nn.GroupNorm:
        """See ``Layers``."""
        return _norm(channels)


DDPMPP = DDPMPlusPlus()


class UNet(nn.Module):
    """A class-conditional U-Net.

    Args:
        spec: Shape of the images.
        classes: Number of classes; label ``classes`` is the null class, where the layers have one.
        settings: Size of the network.
        layers: What it is made of.

    Raises:
        UserError: The images cannot be halved at every level.
    """

    def __init__(
        self, spec: ImageSpec, classes: int, settings: UNetSettings, layers: Layers = DDPMPP
    ) -> None:
        """Build the layers."""
        super().__init__()
        settings.check(spec)
        width, levels = settings.channels, len(settings.channel_mult)
        wide = 4 * width
        pixels = spec.channels * settings.patch**2
        resolution = spec.height // settings.patch
        self.patch = settings.patch
        self.embedding = layers.embedding(classes, width)
        self.first = conv(pixels, width, 3)

        self.down = nn.ModuleList()
        skips, channels = [width], width
        for level, mult in enumerate(settings.channel_mult):
            attend = resolution >> level in settings.attention_resolutions
            for _ in range(settings.blocks):
                self.down.append(layers.block(channels, mult * width, wide, attend))
                channels = mult * width
                skips.append(channels)
            if level + 1 < levels:
                self.down.append(layers.halved(channels, wide))
                skips.append(channels)

        self.middle1 = layers.block(channels, channels, wide, attend=True)
        self.middle2 = layers.block(channels, channels, wide, attend=False)

        self.up = nn.ModuleList()
        self.takes_skip: list[bool] = []
        for level, mult in reversed(list(enumerate(settings.channel_mult))):
            attend = resolution >> level in settings.attention_resolutions
            for block in range(settings.blocks + 1):
                chosen = layers.attends_to_all or block == settings.blocks
                inputs = channels + skips.pop()
                channels = mult * width
                self.up.append(layers.block(inputs, channels, wide, attend and chosen))
                self.takes_skip.append(True)
            if level:
                self.up.append(layers.doubled(channels, wide))
                self.takes_skip.append(False)

        self.last_norm = layers.norm(channels)
        self.last = conv(channels, pixels, 3, scale=0)

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor) -> Tensor:
        """Apply the network.

        Args:
            x: ``(B, C, H, W)``.
            noise_level: ``(B,)``, c_noise.
            labels: ``(B,)``, int64 in [0, classes].

        Returns:
            ``(B, C, H, W)``.
        """
        embedding = self.embedding(noise_level, labels)
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
