"""Data augmentation: random changes of training images that preserve their class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (its customary name)
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """Random changes, drawn for each image independently.

    Attributes:
        flip: Whether to mirror left and right with probability 1/2.
        crop: Largest shift in each direction, in pixels: a random crop of the black-padded image.
        color: Half-width of the interval [1 - color, 1 + color] of the independent factors that
            scale brightness, contrast and saturation.
    """

    flip: bool = False
    crop: int = 0
    color: float = 0.0

    def __call__(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Augment ``(..., C, H, W)`` floats in [-1, 1] with draws from ``rng``; same shape.

        Draws have the shape of the leading dimensions, one row per image, so that neighbour replay
        (``dpbench.privacy.replay``) can remove an image without changing the draws of the others.
        """
        if self == PLAIN:
            return images
        leading, device = images.shape[:-3], images.device
        changed = images.reshape(-1, *images.shape[-3:])
        count, channels, height, width = changed.shape
        if self.flip:
            mirrored = torch.rand(leading, generator=rng, device=device).view(-1, 1, 1, 1) < 0.5
            changed = torch.where(mirrored, changed.flip(-1), changed)
        if self.crop:
            padded = F.pad(changed, (self.crop,) * 4, value=-1.0)
            shifts = torch.randint(
                2 * self.crop + 1, (*leading, 2), generator=rng, device=device
            ).view(-1, 2, 1)
            rows = (shifts[:, 0] + torch.arange(height, device=device))[:, None, :, None]
            columns = (shifts[:, 1] + torch.arange(width, device=device))[:, None, None, :]
            number = torch.arange(count, device=device)[:, None, None, None]
            channel = torch.arange(channels, device=device)[:, None, None]
            changed = padded[number, channel, rows, columns]
        if self.color:
            uniform = torch.rand((*leading, 3), generator=rng, device=device).view(-1, 3, 1, 1, 1)
            brightness, contrast, saturation = (1 + self.color * (2 * uniform - 1)).unbind(1)
            changed = (changed + 1) * brightness - 1
            mean = changed.mean(dim=(1, 2, 3), keepdim=True)
            changed = mean + contrast * (changed - mean)
            grey = changed.mean(dim=1, keepdim=True)
            changed = (grey + saturation * (changed - grey)).clamp(-1, 1)
        return changed.view(images.shape)


PLAIN = Augmentation()
