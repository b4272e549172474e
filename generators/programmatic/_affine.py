"""Random affine maps of the canvas, for sources that place an object on it."""

from __future__ import annotations

import torch
from torch import Tensor

from dpbench.core.images import ImageSpec


def random_affine(
    count: int, spec: ImageSpec, rng: torch.Generator, angle: float = 0.2, shear: float = 0.15
) -> tuple[Tensor, Tensor]:
    """Draw where on a template each pixel of each image lies.

    The object is moved by up to 0.1 of half the shorter side each way, turned, sheared, scaled by
    U(0.85, 1.15) and stretched by U(0.9, 1.1), all uniformly.

    Args:
        count: Number of maps, N.
        spec: The shape of one image; the template is a square as wide as its shorter side.
        rng: Source of randomness.
        angle: Largest rotation either way, radians.
        shear: Largest horizontal shear either way.

    Returns:
        x and y, ``(N, 1, H, W)`` each; the template spans [-1, 1].
    """
    half = min(spec.height, spec.width) / 2
    y = ((torch.arange(spec.height) + 0.5 - spec.height / 2) / half)[:, None]
    x = (torch.arange(spec.width) + 0.5 - spec.width / 2) / half
    y = y - uniform(-0.1, 0.1, count, rng)
    x = x - uniform(-0.1, 0.1, count, rng)
    turn = uniform(-angle, angle, count, rng)
    x, y = x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin()
    x = x + uniform(-shear, shear, count, rng) * y
    scale, stretch = uniform(0.85, 1.15, count, rng), uniform(0.9, 1.1, count, rng)
    return x / (scale * stretch), y / (scale / stretch)


def uniform(low: float, high: float, count: int, rng: torch.Generator) -> Tensor:
    """Draw one number for each image, ``(count, 1, 1, 1)``, uniform in [low, high)."""
    return low + (high - low) * torch.rand(count, 1, 1, 1, generator=rng)
