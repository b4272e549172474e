"""Random changes of training images that leave their class as it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (its customary name)
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """Random changes of images, each by itself.

    Attributes:
        flip: Whether to mirror left and right, with probability 1/2.
        crop: Up to how many pixels to shift in each direction: crops of the black-padded image.
        color: Brightness, contrast and saturation are scaled by independent factors in
            [1 - color, 1 + color].
    """

    flip: bool = False
    crop: int = 0
    color: float = 0.0

    def __call__(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """``(N, C, H, W)``, floats in [-1, 1], to the same, with draws from ``rng``."""
        count, _, height, width = images.shape
        device = images.device
        if self.flip:
            mirrored = torch.rand(count, generator=rng, device=device) < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        if self.crop:
            padded = F.pad(images, (self.crop,) * 4, value=-1.0)
            shape = (2, count, 1)
            top, left = torch.randint(2 * self.crop + 1, shape, generator=rng, device=device)
            rows = (top + torch.arange(height, device=device))[:, None, :, None]
            columns = (left + torch.arange(width, device=device))[:, None, None, :]
            number = torch.arange(count, device=device)[:, None, None, None]
            channel = torch.arange(images.shape[1], device=device)[:, None, None]
            images = padded[number, channel, rows, columns]
        if self.color:
            uniform = torch.rand((3, count, 1, 1, 1), generator=rng, device=device)
            brightness, contrast, saturation = 1 + self.color * (2 * uniform - 1)
            images = (images + 1) * brightness - 1
            mean = images.mean(dim=(1, 2, 3), keepdim=True)
            images = mean + contrast * (images - mean)
            grey = images.mean(dim=1, keepdim=True)
            images = (grey + saturation * (images - grey)).clamp(-1, 1)
        return images


PLAIN = Augmentation()
