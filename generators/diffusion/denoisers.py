"""Denoisers D(x; sigma) = c_skip x + c_out F(c_in x, c_noise), and how sigma is drawn.

Images are floats in [-1, 1]; ``x`` is an image plus Gaussian noise of standard deviation sigma.
Source: Dockhorn et al. 2022 (DPDM), table 9 and appendix B; Karras et al. 2022 (EDM), table 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from dpbench.core.images import ImageSpec, Precision

Interval = tuple[float, float]
EVERYWHERE: Interval = (-math.inf, math.inf)
# What the state of a denoiser that belongs to the classes and to nothing else is called.
STATE_OF_CLASSES = ("network.embedding.label.", "centres.")


class Parameterization(Protocol):
    """Preconditioning, loss weight and noise distribution of a denoiser."""

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``(c_skip, c_out, c_in, c_noise)``, each of sigma's shape."""

    def weight(self, sigma: Tensor) -> Tensor:
        """The factor of the squared error."""

    def quantile(self, u: Tensor, interval: Interval) -> Tensor:
        """Sigma at quantile ``u`` in [0, 1], given that ln sigma lies in ``interval``.

        Inverting the distribution function rather than rejecting keeps one draw per copy,
        whatever the probability of the interval (EDM's coarse stage has 0.4%).
        """


@dataclass(frozen=True)
class EDM:
    """Karras et al. 2022: ln sigma ~ N(-1.2, 1.2^2)."""

    sigma_data: float = math.sqrt(1 / 3)  # standard deviation of uniform pixels in [-1, 1]
    p_mean: float = -1.2
    p_std: float = 1.2

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See ``Parameterization``."""
        total = sigma**2 + self.sigma_data**2
        return (
            self.sigma_data**2 / total,
            sigma * self.sigma_data / total.sqrt(),
            1 / total.sqrt(),
            sigma.log() / 4,
        )

    def weight(self, sigma: Tensor) -> Tensor:
        """See ``Parameterization``."""
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2

    def quantile(self, u: Tensor, interval: Interval) -> Tensor:
        """See ``Parameterization``."""
        low, high = (
            0.5 * (1 + math.erf((bound - self.p_mean) / (self.p_std * math.sqrt(2))))
            for bound in interval
        )
        # float64: the upper tail of the normal distribution is lost in float32
        z = torch.special.ndtri(low + (high - low) * u.double().clamp(1e-9, 1 - 1e-9))
        sigma: Tensor = (self.p_mean + self.p_std * z).exp().float()
        return sigma


@dataclass(frozen=True)
class V:
    """Salimans and Ho 2022: t uniform, sigma = tan(pi t / 2), log SNR in [-9, 13]."""

    log_snr_min: float = -9.0
    log_snr_max: float = 13.0

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See ``Parameterization``."""
        total = sigma**2 + 1
        return 1 / total, sigma / total.sqrt(), 1 / total.sqrt(), sigma.atan() * (2 / math.pi)

    def weight(self, sigma: Tensor) -> Tensor:
        """See ``Parameterization``."""
        return (sigma**2 + 1) / sigma**2

    def quantile(self, u: Tensor, interval: Interval) -> Tensor:
        """See ``Parameterization``."""
        # log SNR = -2 ln sigma
        low = math.atan(math.exp(max(interval[0], -self.log_snr_max / 2)))
        high = math.atan(math.exp(min(interval[1], -self.log_snr_min / 2)))
        return (low + (high - low) * u.double()).tan().float()


PARAMETERIZATIONS: dict[str, Parameterization] = {"edm": EDM(), "v": V()}


class Centres(nn.Module):
    """A normal distribution for each class, learnt like a weight: where denoising starts from.

    Where noise hides everything, the best estimate is the mean of the class, and which pixels vary
    around it matters next. A network needs many steps until it can draw that, and under DP-SGD few
    are to be had; these parameters need a few. Our own; akin to PriorGrad (Lee et al. 2022, arXiv
    2106.06406), which takes mean and scale of the noise from statistics of the condition, where
    here they are learnt.

    Args:
        spec: Shape of the images.
        classes: Number of classes; label ``classes`` is the null class, which has one too.
        widths: Whether pixels have a variance each, or all that of the parameterization's data.
    """

    # makes gradients of centres about as long as those of the other weights, with which they share
    # the clipping norm
    SCALE: ClassVar[float] = 10.0
    # of ln(width): wider than [-1, 1] is, and narrower than a grey level
    LIMITS: ClassVar[tuple[float, float]] = (-5.0, 1.0)

    def __init__(self, spec: ImageSpec, classes: int, widths: bool = False) -> None:
        """Start grey, and as wide as the data."""
        super().__init__()
        self.shape = spec.shape
        self.images = self._zeros(classes)
        self.widths = self._zeros(classes) if widths else None

    def _zeros(self, classes: int) -> nn.Embedding:
        pixels = nn.Embedding(classes + 1, math.prod(self.shape))
        nn.init.zeros_(pixels.weight)
        return pixels

    def forward(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean, and variance as a multiple of the data's, of the distributions of classes.

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


class Denoiser(nn.Module):
    """A network with its preconditioning, and perhaps centres.

    D(x; sigma) = c_skip x + c_out F(c_in x, c_noise). With centres c_skip x gives way to the
    posterior mean of the class's normal distribution, and c_out is scaled in each pixel as its
    posterior standard deviation is. Both follow from w = (c_in sigma)^2, the share of noise in what
    the network sees, which for EDM and v is 1 - c_skip.

    Args:
        network: F: ``(x (B, C, H, W), c_noise (B,), labels (B,)) -> (B, C, H, W)``.
        parameterization: The coefficients.
        precision: What the network computes in; weights and all else are float32.
        centres: Normal distributions of classes; None for none.
    """

    def __init__(
        self,
        network: nn.Module,
        parameterization: Parameterization,
        precision: Precision = "float32",
        centres: Centres | None = None,
    ) -> None:
        """Keep them."""
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
        scaled = c_in[:, None, None, None] * x
        lower = self.precision == "bfloat16"
        with torch.autocast(x.device.type, torch.bfloat16, enabled=lower):
            out: Tensor = self.network(scaled, c_noise, labels)
        estimate, scale = self.untrained(x, sigma, labels)
        return estimate + c_out[:, None, None, None] * scale * out.float()

    def untrained(self, x: Tensor, sigma: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The estimate where the network says 0, as ``forward``, and a factor of what it says."""
        c_skip, _, c_in, _ = self.parameterization.coefficients(sigma)
        if self.centres is None:
            return c_skip[:, None, None, None] * x, x.new_ones(())
        means, variances = self.centres(labels)
        noise = ((c_in * sigma) ** 2)[:, None, None, None]
        total = variances * (1 - noise) + noise
        return x + noise / total * (means - x), (variances / total).sqrt()


class Experts(nn.Module):
    """Two denoisers that share the noise levels between them.

    Args:
        below: Asked where sigma is below ``threshold``.
        above: Asked elsewhere.
        threshold: A value of sigma.
    """

    def __init__(self, below: nn.Module, above: nn.Module, threshold: float) -> None:
        """Keep them."""
        super().__init__()
        self.below = below
        self.above = above
        self.threshold = threshold

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """As ``Denoiser.forward``; all of a batch must be at one noise level."""
        expert = self.below if float(sigma[0]) < self.threshold else self.above
        result: Tensor = expert(x, sigma, labels)
        return result
