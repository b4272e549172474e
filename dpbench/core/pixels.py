"""Uint8 images: to the floats that networks take and back, as grids, and equal ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

DIGESTED_AT_ONCE = 4096  # images


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


def image_digests(pixels: Tensor, mirrored: bool = False) -> NDArray[np.uint64]:
    """A digest of each image: equal images have equal ones, others differ but by rare chance.

    Args:
        pixels: ``(N, C, H, W)``, uint8.
        mirrored: Digest each image as it is mirrored left to right.

    Returns:
        ``(N,)``, uint64: 8 bytes of BLAKE2b.
    """
    found = []
    # in parts, so that no second copy of a large split is in memory
    for part in torch.split(pixels, DIGESTED_AT_ONCE):
        rows = (part.flip(3) if mirrored else part).contiguous().numpy()
        found += [hashlib.blake2b(row.data, digest_size=8).digest() for row in rows]
    return np.frombuffer(b"".join(found), np.uint64)
