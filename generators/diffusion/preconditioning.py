"""Parameterizations: preconditioning of a denoiser, weight of its loss, distribution of its noise.

Images are floats in [-1, 1]; a noisy image is one plus Gaussian noise of standard deviation sigma.
Source: Dockhorn et al. 2022 (DPDM), table 9 and appendix B; Karras et al. 2022 (EDM), table 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dpbench.core.errors import UserError

Interval = tuple[float, float]  # of ln sigma
EVERYWHERE: Interval = (-math.inf, math.inf)


class Parameterization(Protocol):
    """Preconditioning, loss weight and noise distribution of a denoiser."""

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return ``(c_skip, c_out, c_in, c_noise)``, each of sigma's shape."""

    def weight(self, sigma: Tensor) -> Tensor:
        """Return the factor of the squared error, of sigma's shape."""

    def quantile(self, u: Tensor, interval: Interval) -> Tensor:
        """Return sigma at quantile ``u`` in [0, 1], given that ln sigma lies in ``interval``.

        Inverting the distribution function rather than rejecting takes one draw per copy,
        whatever the probability of the interval (EDM's coarse stage has 0.4%).
        """


@dataclass(frozen=True)
class EDM:
    """Karras et al. 2022: ln sigma ~ N(-1.2, 1.2^2)."""

    sigma_data: float = math.sqrt(1 / 3)  # standard deviation of uniform pixels in [-1, 1]
    p_mean: float = -1.2
    p_std: float = 1.2

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Table 1 of the paper."""
        total = sigma**2 + self.sigma_data**2
        return (
            self.sigma_data**2 / total,
            sigma * self.sigma_data / total.sqrt(),
            1 / total.sqrt(),
            sigma.log() / 4,
        )

    def weight(self, sigma: Tensor) -> Tensor:
        """One over c_out squared."""
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2

    def quantile(self, u: Tensor, interval: Interval) -> Tensor:
        """Invert the normal distribution of ln sigma."""
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
        """The network sees a unit-variance image and t."""
        total = sigma**2 + 1
        return 1 / total, sigma / total.sqrt(), 1 / total.sqrt(), sigma.atan() * (2 / math.pi)

    def weight(self, sigma: Tensor) -> Tensor:
        """One over c_out squared."""
        return (sigma**2 + 1) / sigma**2

    def quantile(self, u: Tensor, interval: Interval) -> Tensor:
        """Invert the uniform distribution of t."""
        # log SNR = -2 ln sigma
        low = math.atan(math.exp(max(interval[0], -self.log_snr_max / 2)))
        high = math.atan(math.exp(min(interval[1], -self.log_snr_min / 2)))
        return (low + (high - low) * u.double()).tan().float()


# DDPM's schedule. Steps are counted from 0.
STEPS = 1000
ALPHA_BAR = (1 - torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64)).cumprod(0)
SIGMA = ((1 - ALPHA_BAR) / ALPHA_BAR).sqrt()
# Sigma in float32 lies safely between the borders of its step.
_BORDERS = (SIGMA[:-1] * SIGMA[1:]).sqrt().float()


@dataclass(frozen=True)
class DDPM:
    """Prediction of the noise, with DDPM's schedule in terms of sigma.

    Ho et al. 2020 (arXiv 2006.11239) noise an image x to sqrt(abar_t) x + sqrt(1 - abar_t) eps,
    with abar_t the product of 1 - beta_s up to t, for T = 1000 steps and beta linear from 1e-4 to
    0.02, and train a network to predict eps. Divided by sqrt(abar_t) that is x + sigma_t eps with
    sigma_t^2 = (1 - abar_t) / abar_t, which is how the denoisers here see it: D(x; sigma) = x -
    sigma eps(x), and (D - clean)^2 / sigma^2 is the squared error of eps.

    Training draws its time steps from the mixture ``sum_i weights[i] U[b_i, b_{i+1})`` of
    Ghalebikesabi et al. 2023, section 4, over whole steps.

    Attributes:
        weights: Shares of the mixture's parts; not negative, with sum 1.
        breakpoints: b, rising within [0, 1000]; one more than there are weights.
    """

    weights: tuple[float, ...] = (1.0,)
    breakpoints: tuple[int, ...] = (0, STEPS)

    def __post_init__(self) -> None:
        """Check the mixture.

        Raises:
            UserError: The weights and breakpoints make no mixture.
        """
        bounds = self.breakpoints
        if len(bounds) != len(self.weights) + 1 or not self.weights:
            raise UserError(
                f"a mixture of time steps has one breakpoint more than weights, got weights "
                f"{self.weights} and breakpoints {bounds}"
            )
        if min(self.weights) < 0 or abs(sum(self.weights) - 1) > 1e-6:
            raise UserError(
                f"weights of a mixture of time steps are 0 or more and add up to 1, got "
                f"{self.weights}"
            )
        rising = all(low < high for low, high in zip(bounds, bounds[1:], strict=False))
        if not rising or bounds[0] < 0 or bounds[-1] > STEPS:
            raise UserError(
                f"breakpoints of a mixture of time steps rise within 0 and {STEPS}, got {bounds}"
            )

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The network sees an image as DDPM noised it, and the time step."""
        step = torch.bucketize(sigma, _BORDERS.to(sigma.device)).float()
        return torch.ones_like(sigma), -sigma, (1 + sigma**2).rsqrt(), step

    def weight(self, sigma: Tensor) -> Tensor:
        """One over c_out squared."""
        return 1 / sigma**2

    def quantile(self, u: Tensor, interval: Interval) -> Tensor:
        """Invert the distribution of the time step."""
        log_sigma = SIGMA.log()
        inside = (log_sigma >= interval[0]) & (log_sigma <= interval[1])
        cumulative = torch.where(inside, self.probabilities(), 0).cumsum(0).to(u.device)
        share = u.double().clamp(max=1 - 1e-9) * cumulative[-1]
        step = torch.searchsorted(cumulative, share, right=True)
        return SIGMA.to(u.device)[step].float()

    def probabilities(self) -> Tensor:
        """Probability of each time step: ``(1000,)``, float64."""
        result = torch.zeros(STEPS, dtype=torch.float64)
        bounds = zip(self.breakpoints, self.breakpoints[1:], strict=False)
        for weight, (low, high) in zip(self.weights, bounds, strict=True):
            result[low:high] = weight / (high - low)
        return result


CONTINUOUS: dict[str, Parameterization] = {"edm": EDM(), "v": V()}  # by name
