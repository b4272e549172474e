"""Convert uint8 images to the floats that networks take and back, and draw grids of images."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor


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
    height, width = pixels.shape[2] + 1, pixels.shape[3] + 1  # with a white line between images
    size = (columns * width + 1, -(-len(pixels) // columns) * height + 1)
    grid = Image.new("RGB", size, "white")
    for number, image in enumerate(pixels.cpu().permute(0, 2, 3, 1).numpy()):
        corner = (number % columns * width + 1, number // columns * height + 1)
        grid.paste(Image.fromarray(image.squeeze()), corner)
    grid.resize((scale * grid.width, scale * grid.height), Image.Resampling.NEAREST).save(file)
