"""First-order scattering coefficients of images: local energies of oriented edges.

Bruna and Mallat 2013 (arXiv 1203.1513): the modulus of an image's wavelet transform, averaged
locally, changes little where an image is shifted or deformed, and much with its shapes and grain.
The filters are fixed, so they cost no privacy.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 (its customary name)
from torch import Tensor

from dpbench.core.images import ImageSpec

ORIENTATIONS = 8
KERNEL = 7  # pixels on the side of a filter
# Morlet wavelets of the smallest scale: bandwidth in pixels, and centre frequency in radians a
# pixel. The next scale is that of an image of half the size.
WIDTH, FREQUENCY = 0.8, 3 * math.pi / 4
# Intensities count half: their differences are larger than those of energies.
OF_INTENSITIES = 0.5


def morlet_filters() -> Tensor:
    """Real and imaginary parts of Morlet wavelets, one orientation after another.

    Returns:
        ``(2 * ORIENTATIONS, 1, KERNEL, KERNEL)``, float32; each with mean 0 and norm 1.
    """
    place = torch.arange(KERNEL) - KERNEL // 2
    y, x = torch.meshgrid(place.float(), place.float(), indexing="ij")
    filters = []
    for orientation in range(ORIENTATIONS):
        angle = math.pi * orientation / ORIENTATIONS
        along = x * math.cos(angle) + y * math.sin(angle)
        across = y * math.cos(angle) - x * math.sin(angle)
        slant = 4 / ORIENTATIONS
        envelope = torch.exp(-(along**2 + (slant * across) ** 2) / (2 * WIDTH**2))
        for wave in (torch.cos(FREQUENCY * along), torch.sin(FREQUENCY * along)):
            shaped = envelope * wave
            shaped = shaped - envelope * (shaped.sum() / envelope.sum())
            filters.append(shaped / shaped.norm())
    return torch.stack(filters)[:, None]


def coefficients(images: Tensor, filters: Tensor) -> Tensor:
    """Compute intensities at half the size, and energies of edges at a quarter of it.

    Args:
        images: ``(N, C, H, W)``, float32, intensities in [0, 1].
        filters: From ``morlet_filters``, on the same device.

    Returns:
        ``(N, M)`` with M as ``count_coefficients`` tells.
    """
    spec = ImageSpec(*images.shape[1:])
    small, quarter = F.adaptive_avg_pool2d(images, spec.shrunk(2)), spec.shrunk(4)
    energies = (F.adaptive_avg_pool2d(_energy(each, filters), quarter) for each in (images, small))
    return torch.cat([part.flatten(1) for part in (OF_INTENSITIES * small, *energies)], dim=1)


def count_coefficients(spec: ImageSpec) -> int:
    """The number of an image's coefficients."""
    energies = 2 * ORIENTATIONS * math.prod(spec.shrunk(4))
    return spec.channels * (math.prod(spec.shrunk(2)) + energies)


def _energy(images: Tensor, filters: Tensor) -> Tensor:
    """The modulus of the wavelet transform: ``(N, C * ORIENTATIONS, H, W)``."""
    channels = images.shape[1]
    waves = F.conv2d(
        images, filters.repeat(channels, 1, 1, 1), padding=KERNEL // 2, groups=channels
    )
    # differentiable at 0
    return (waves[:, 0::2].square() + waves[:, 1::2].square() + 1e-4).sqrt()
