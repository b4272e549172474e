"""Denoisers D(x; sigma) = c_skip x + c_out F(c_in x, c_noise).

Images are floats in [-1, 1]; ``x`` is an image plus Gaussian noise of standard deviation sigma.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from dpbench.core.images import ImageSpec, Precision

from .preconditioning import Parameterization
from .spectrum import Spectrum

# Prefixes in a denoiser's state of what belongs to the classes and to nothing else.
STATE_OF_CLASSES = ("network.embedding.label.", "centres.")


class Centres(nn.Module):
    """A normal distribution for each class, learnt like a weight: where denoising starts from.

    Where noise hides everything, the best estimate is the mean of the class, and which pixels vary
    around it matters next. A network needs more steps to learn that than DP-SGD affords; these
    parameters need few. Our own; akin to PriorGrad (Lee et al. 2022, arXiv 2106.06406), which takes
    mean and scale of the noise from statistics of the condition, where here they are learnt.

    Args:
        spec: Shape of the images.
        classes: Number of classes; label ``classes`` is the null class, which has one too.
        widths: Whether each pixel has its own variance, rather than that of the parameterization's
            data.
        exponent: Of the power law by which variance falls with frequency, see ``Spectrum``; 0: it
            does not, and pixels vary independently.
    """

    # Makes gradients of centres about as long as those of the other weights, with which they share
    # the clipping norm.
    SCALE: ClassVar[float] = 10.0
    # Limits of ln(width): narrower than a grey level, and wider than [-1, 1].
    LIMITS: ClassVar[tuple[float, float]] = (-5.0, 1.0)

    def __init__(
        self, spec: ImageSpec, classes: int, widths: bool = False, exponent: float = 0.0
    ) -> None:
        """Start grey, and as wide as the data."""
        super().__init__()
        self.shape = spec.shape
        self.images = self._zeros(classes)
        self.widths = self._zeros(classes) if widths else None
        self.spectrum = Spectrum(spec, exponent) if exponent else None

    def _zeros(self, classes: int) -> nn.Embedding:
        pixels = nn.Embedding(classes + 1, math.prod(self.shape))
        nn.init.zeros_(pixels.weight)
        return pixels

    def forward(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return means, and variances as multiples of the data's, of the labels' distributions.

        Args:
            labels: ``(B,)``, int64.

        Returns:
            Both ``(B, C, H, W)``.
        """
        means = self.SCALE * self.images(labels).view(-1, *self.shape)
        if self.widths is None:
            return means, torch.ones_like(means)
        log_widths = self.SCALE * self.widths(labels).view(-1, *self.shape)
        return means, (2 * log_widths.clamp(*self.LIMITS)).exp()


@dataclass(frozen=True)
class ClassStatistics:
    """Means and variances of the pixels of each class, intensities in [0, 1].

    Attributes:
        means: ``(classes, C, H, W)``, float32.
        variances: Of the same shape, above 0.
    """

    means: Tensor
    variances: Tensor


class Statistics(nn.Module):
    """A normal distribution for each class, given: where denoising starts from.

    The network sees it too, in place of the label. So what it learns of some classes holds for
    others, of which it sees other images: a network of many programmatic classes knows what to do
    with private ones.

    Args:
        means: ``(classes, C, H, W)``, in [-1, 1].
        variances: Of the same shape, of pixels in [-1, 1], above 0.
        data_variance: That of the parameterization's data.
        exponent: As of ``Centres``.
    """

    SEEN: ClassVar[int] = 3  # images that the network sees: the noisy one and these two
    means: Tensor
    variances: Tensor

    def __init__(
        self, means: Tensor, variances: Tensor, data_variance: float, exponent: float = 0.0
    ) -> None:
        """Keep the distributions; the null class gets that of all classes together."""
        super().__init__()
        self.spectrum = Spectrum(ImageSpec(*means.shape[1:]), exponent) if exponent else None
        self.data_variance = data_variance
        of_all = variances.mean(0) + means.var(0, correction=0)
        self.register_buffer("means", torch.cat([means, means.mean(0, keepdim=True)]))
        self.register_buffer("variances", torch.cat([variances, of_all[None]]))

    def forward(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return means, and variances as multiples of the data's, as ``Centres``."""
        return self.means[labels], self.variances[labels] / self.data_variance

    def shown(self, labels: Tensor) -> Tensor:
        """Return means and deviations side by side, ``(B, 2 * C, H, W)``."""
        return torch.cat([self.means[labels], self.variances[labels].sqrt()], dim=1)


class Denoiser(nn.Module):
    """A network with its preconditioning, and optionally centres.

    D(x; sigma) = c_skip x + c_out F(c_in x, c_noise). With centres, the posterior mean of the
    class's normal distribution replaces c_skip x, and c_out is scaled in each pixel by its
    posterior standard deviation. Both follow from w = (c_in sigma)^2, the share of noise in what
    the network sees, which for EDM and v is 1 - c_skip.

    With a spectrum, the noisy deviation from the mean is first filtered by it; the pixels'
    variances then weigh what is left of the noise. That approximates the posterior mean.

    Args:
        network: F: ``(x (B, C, H, W), c_noise (B,), labels (B,)) -> (B, C, H, W)``. With given
            centres it sees ``Statistics.SEEN`` images side by side, and no label.
        parameterization: Gives the coefficients.
        precision: Precision of the network's activations; weights and the rest are float32.
        centres: Normal distributions of classes, or None.
    """

    def __init__(
        self,
        network: nn.Module,
        parameterization: Parameterization,
        precision: Precision = "float32",
        centres: Centres | Statistics | None = None,
    ) -> None:
        """Keep the parts."""
        super().__init__()
        self.network = network
        self.parameterization = parameterization
        self.precision = precision
        self.centres = centres

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """Estimate the clean images.

        Args:
            x: ``(B, C, H, W)``, noisy images.
            sigma: ``(B,)``, standard deviation of their noise.
            labels: ``(B,)``, int64 in [0, classes]; ``classes`` is the null class.

        Returns:
            ``(B, C, H, W)``.
        """
        _, c_out, c_in, c_noise = self.parameterization.coefficients(sigma)
        seen = c_in[:, None, None, None] * x
        told = labels
        if isinstance(self.centres, Statistics):
            seen = torch.cat([seen, self.centres.shown(labels)], dim=1)
            told = torch.zeros_like(labels)
        lower = self.precision == "bfloat16"
        with torch.autocast(x.device.type, torch.bfloat16, enabled=lower):
            out: Tensor = self.network(seen, c_noise, told)
        estimate, scale = self.untrained(x, sigma, labels)
        return estimate + c_out[:, None, None, None] * scale * out.float()

    def untrained(self, x: Tensor, sigma: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the estimate if the network's output is 0, and a factor for its output."""
        c_skip, _, c_in, _ = self.parameterization.coefficients(sigma)
        if self.centres is None:
            return c_skip[:, None, None, None] * x, x.new_ones(())
        means, variances = self.centres(labels)
        noise = ((c_in * sigma) ** 2)[:, None, None, None]
        total = variances * (1 - noise) + noise
        scale = (variances / total).sqrt()
        if self.centres.spectrum is None:
            return x + noise / total * (means - x), scale
        smooth, left = self.centres.spectrum(x - means, noise / (1 - noise))
        return means + variances / (variances + left) * smooth, scale


class Experts(nn.Module):
    """Two denoisers, one for each side of a noise level.

    Args:
        below: Used where sigma is below ``threshold``.
        above: Used elsewhere.
        threshold: A value of sigma.
    """

    def __init__(self, below: nn.Module, above: nn.Module, threshold: float) -> None:
        """Keep the parts."""
        super().__init__()
        self.below = below
        self.above = above
        self.threshold = threshold

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """Estimate the clean images as ``Denoiser`` does; a batch must be at one noise level."""
        expert = self.below if float(sigma[0]) < self.threshold else self.above
        result: Tensor = expert(x, sigma, labels)
        return result
