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
        """``(..., C, H, W)``, floats in [-1, 1], to the same, with draws from ``rng``.

        Draws have the shape of the leading dimensions, so that those of an image are a row of them:
        an image less does not change what the others get (see ``dpbench.privacy.replay.replay``).
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
