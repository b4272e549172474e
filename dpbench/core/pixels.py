"""Convert uint8 images to the floats that networks take and back, and draw grids of images."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid


def from_pixels(pixels: Tensor) -> Tensor:
    """Uint8 in [0, 255] to float32 in [-1, 1]; any shape."""
    return pixels.float().div(127.5).sub(1)


def to_pixels(images: Tensor) -> Tensor:
    """Floats in [-1, 1] (clamped) to uint8 in [0, 255], rounded to nearest; any shape."""
    return images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def save_grid(pixels: Tensor, columns: int, file: Path, scale: int = 2) -> None:
    """Write images as one PNG picture, row by row.

    Args:
        pixels: ``(N, C, H, W)``, uint8.
        columns: Number of images in a row.
        file: The PNG file.
        scale: Factor of enlargement, so that small images can be seen.
    """
    grid = make_grid(pixels.cpu(), nrow=columns, padding=1, pad_value=255)
    picture = Image.fromarray(grid.permute(1, 2, 0).numpy())
    picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST).save(
        file
    )
