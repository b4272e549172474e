"""Spectrum: random fields whose power falls with frequency, as that of photographs does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dpbench.core.images import ImageSpec

from ._affine import uniform


@dataclass(frozen=True)
class Spectrum:
    """The spectrum model of Baradad et al. 2021, "Learning to see by looking at noise".

    A plane has the Fourier magnitude 1 / (|fx|^a + |fy|^b), frequencies in cycles per pixel, none
    at frequency 0, and the phases of white noise. As in the authors' program, each image has a
    slope s ~ U(slope_min, slope_max), and a = s + d, b = s - d, d ~ N(0, (slope_max - slope_min) /
    60). The paper says that a and b are uniform and leaves open whether they are independent: if
    they were, most images would be stripes. Images are stretched to use all of [0, 255].

    Where there are several channels, each image mixes as many planes of one magnitude by a matrix
    of standard normals and adds a standard normal mean colour. This stands in for the paper's
    "spectrum + color", which imposes the colour histogram of a random palette by turns with the
    magnitude: both give each image correlated channels and a tint of its own, but mixing is linear
    and so leaves the power law as it is.

    Attributes:
        slope_min: Smallest s.
        slope_max: Largest s.
    """

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "random fields with power-law spectra (Baradad et al. 2021)"
    labelled: ClassVar[bool] = False

    slope_min: float = 0.5
    slope_max: float = 3.5

    def draw(self, spec: ImageSpec, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Draw one image for each label, as ``Source``."""
        count, channels = len(labels), spec.channels
        slope = uniform(self.slope_min, self.slope_max, count, rng)
        spread = (self.slope_max - self.slope_min) / 60
        apart = spread * torch.randn(count, 1, 1, 1, generator=rng)
        inverse = torch.fft.rfftfreq(spec.width) ** (slope + apart)
        inverse = inverse + torch.fft.fftfreq(spec.height).abs()[:, None] ** (slope - apart)
        inverse[..., 0, 0] = torch.inf
        phases = torch.fft.rfft2(torch.randn(count, *spec.shape, generator=rng)).sgn()
        planes = torch.fft.irfft2(phases / inverse, s=(spec.height, spec.width)).flatten(2)
        planes = planes / planes.std(dim=2, keepdim=True)
        mixing = torch.randn(count, channels, channels, generator=rng)
        colours = mixing @ planes + torch.randn(count, channels, 1, generator=rng)
        low, high = colours.amin((1, 2), keepdim=True), colours.amax((1, 2), keepdim=True)
        pixels: Tensor = (255 * (colours - low) / (high - low)).round()
        return pixels.view(count, *spec.shape).to(torch.uint8)


SOURCE = Spectrum
