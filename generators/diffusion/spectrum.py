"""Images whose variance falls with frequency, as that of natural images does, and noise on them.

The power of natural images falls with frequency f as 1 / f^2 (Field 1987, J. Opt. Soc. Am. A 4).
Noise of the denoising models is white. So what is fine in a noisy image is mostly noise, and what
is coarse is mostly image.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from dpbench.core.images import ImageSpec

from .._cosines import cosines


class Spectrum(nn.Module):
    """The Wiener filter of a normal distribution with mean 0 and a power-law spectrum.

    In the discrete cosine transform, the variance at frequencies (i, j) goes with
    (1 + sqrt(i^2 + j^2))^-exponent, and is 1 on average.

    Args:
        spec: Shape of the images.
        exponent: Of the power law; 0 is white.
    """

    down: Tensor
    across: Tensor
    variances: Tensor

    def __init__(self, spec: ImageSpec, exponent: float) -> None:
        """Compute the transform; nothing is learnt, and nothing belongs to the state."""
        super().__init__()
        frequencies = np.hypot(np.arange(spec.height)[:, None], np.arange(spec.width))
        variances = (1 + frequencies) ** -exponent
        parts = {
            "down": cosines(spec.height),
            "across": cosines(spec.width),
            "variances": variances / variances.mean(),
        }
        for name, part in parts.items():
            self.register_buffer(name, torch.from_numpy(part).float(), persistent=False)

    def forward(self, noisy: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Estimate images of the distribution from noisy ones.

        Args:
            noisy: ``(B, C, H, W)``: images and white noise.
            noise: ``(B, 1, 1, 1)``: variance of the noise in each pixel.

        Returns:
            The posterior mean, ``(B, C, H, W)``, and the variance in each pixel of what is left of
            the noise in it, ``(B, 1, 1, 1)``.
        """
        gains = self.variances / (self.variances + noise)
        waves = self.down @ noisy @ self.across.T
        return self.down.T @ (gains * waves) @ self.across, noise * gains.square().mean(
            (2, 3), keepdim=True
        )
