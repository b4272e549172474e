"""What the class-conditional U-Nets have in common: their size, and how their layers are joined.

``patch`` folds patch x patch pixels into channels first (space to depth), which makes a network
small and fast enough for a CPU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 (its customary name)
from torch import Tensor, nn

from dpbench.core.errors import UserError
from dpbench.core.images import ImageSpec

from .layers import conv

MOST_BLOCKS = 100


@dataclass(frozen=True)
class UNetSettings:
    """Size of a U-Net.

    Attributes:
        channels: Channels of the first level.
        channel_mult: Factor of ``channels`` for each level; every level halves the resolution.
        blocks: Residual blocks at each level.
        attention_resolutions: Heights, after patching, at which attention follows a block.
        patch: Pixels on the side of a patch; 1 is no patching.
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
        if self.blocks > MOST_BLOCKS:  # they are built before their parameters are counted
            raise UserError(f"blocks must be at most {MOST_BLOCKS}, got {self.blocks}")

    def check(self, spec: ImageSpec) -> None:
        """Check that images of this shape can be halved at every level.

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


class UNet(nn.Module, ABC):
    """A class-conditional U-Net; subclasses choose its layers.

    Embeddings are ``(B, 4 * channels)``; blocks and changes of resolution are called with
    ``(B, channels, H, W)`` and an embedding.

    Args:
        spec: Shape of the images.
        classes: Number of classes; label ``classes`` is the null class, where there is one.
        settings: Size of the network.
        seen: Images of this shape that the network sees side by side, as channels.

    Attributes:
        attends_to_all: Whether attention follows every block on the way up, not only the last one
            of a level.

    Raises:
        UserError: The images cannot be halved at every level.
    """

    attends_to_all: ClassVar[bool]

    def __init__(
        self, spec: ImageSpec, classes: int, settings: UNetSettings, seen: int = 1
    ) -> None:
        """Build the layers."""
        super().__init__()
        settings.check(spec)
        width, levels = settings.channels, len(settings.channel_mult)
        wide = 4 * width
        pixels = spec.channels * settings.patch**2
        resolution = spec.height // settings.patch
        self.patch = settings.patch
        self.embedding = self._embedding(classes, width)
        self.first = conv(seen * pixels, width, 3)

        self.down = nn.ModuleList()
        skips, channels = [width], width
        for level, mult in enumerate(settings.channel_mult):
            attend = resolution >> level in settings.attention_resolutions
            for _ in range(settings.blocks):
                self.down.append(self._block(channels, mult * width, wide, attend))
                channels = mult * width
                skips.append(channels)
            if level + 1 < levels:
                self.down.append(self._halved(channels, wide))
                skips.append(channels)

        self.middle1 = self._block(channels, channels, wide, attend=True)
        self.middle2 = self._block(channels, channels, wide, attend=False)

        self.up = nn.ModuleList()
        self.takes_skip: list[bool] = []
        for level, mult in reversed(list(enumerate(settings.channel_mult))):
            attend = resolution >> level in settings.attention_resolutions
            for block in range(settings.blocks + 1):
                chosen = self.attends_to_all or block == settings.blocks
                inputs = channels + skips.pop()
                channels = mult * width
                self.up.append(self._block(inputs, channels, wide, attend and chosen))
                self.takes_skip.append(True)
            if level:
                self.up.append(self._doubled(channels, wide))
                self.takes_skip.append(False)

        self.last_norm = self._norm(channels)
        self.last = conv(channels, pixels, 3, scale=0)

    @abstractmethod
    def _embedding(self, classes: int, width: int) -> nn.Module:
        """Maps noise levels ``(B,)`` and labels ``(B,)`` to embeddings ``(B, 4 * width)``.

        The part that belongs to the classes is named ``label``, an ``nn.Embedding``.
        """

    @abstractmethod
    def _block(self, inputs: int, outputs: int, embedding: int, attend: bool) -> nn.Module:
        """A residual block, followed by attention or not."""

    @abstractmethod
    def _halved(self, channels: int, embedding: int) -> nn.Module:
        """A layer that halves the resolution."""

    @abstractmethod
    def _doubled(self, channels: int, embedding: int) -> nn.Module:
        """A layer that doubles the resolution."""

    @abstractmethod
    def _norm(self, channels: int) -> nn.GroupNorm:
        """The normalisation of blocks, attention and output."""

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor) -> Tensor:
        """Apply the network.

        Args:
            x: ``(B, seen * C, H, W)``.
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
