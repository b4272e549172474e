"""DDPM's noise schedule in terms of sigma, with time steps from a mixture of uniforms.

Ho et al. 2020 (arXiv 2006.11239) noise an image x to sqrt(abar_t) x + sqrt(1 - abar_t) eps, with
abar_t the product of 1 - beta_s up to t, for T = 1000 steps and beta linear from 1e-4 to 0.02, and
train a network to predict eps. Divided by sqrt(abar_t) that is x + sigma_t eps with sigma_t^2 =
(1 - abar_t) / abar_t, which is how the denoisers here see it: D(x; sigma) = x - sigma eps(x), and
(D - clean)^2 / sigma^2 is the squared error of eps. Steps are counted from 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dpbench.core.errors import UserError

from .denoisers import Interval

STEPS = 1000
ALPHA_BAR = (1 - torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64)).cumprod(0)
SIGMA = ((1 - ALPHA_BAR) / ALPHA_BAR).sqrt()
# Sigma in float32 lies safely between the borders of its step.
_BORDERS = (SIGMA[:-1] * SIGMA[1:]).sqrt().float()


@dataclass(frozen=True)
class DDPM:
    """Prediction of the noise: see ``denoisers.Parameterization`` and ``samplers.Spacing``.

    Training draws its time steps from the mixture ``sum_i weights[i] U[b_i, b_{i+1})`` of
    Ghalebikesabi et al. 2023, section 4, over whole steps.

    Attributes:
        weights: Not negative, with sum 1.
        breakpoints: b, rising within [0, 1000]; one more than there are weights.
    """

    weights: tuple[float, ...] = (1.0,)
    breakpoints: tuple[int, ...] = (0, STEPS)

    def __post_init__(self) -> None:
        """Check that this is a mixture.

        Raises:
            UserError: It is not.
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
        """See ``Parameterization``; c_noise is the time step."""
        step = torch.bucketize(sigma, _BORDERS.to(sigma.device)).float()
        return torch.ones_like(sigma), -sigma, (1 + sigma**2).rsqrt(), step

    def weight(self, sigma: Tensor) -> Tensor:
        """See ``Parameterization``."""
        return 1 / sigma**2

    def quantile(self, u: Tensor, interval: Interval) -> Tensor:
        """See ``Parameterization``."""
        log_sigma = SIGMA.log()
        inside = (log_sigma >= interval[0]) & (log_sigma <= interval[1])
        cumulative = torch.where(inside, self.probabilities(), 0).cumsum(0).to(u.device)
        share = u.double().clamp(max=1 - 1e-9) * cumulative[-1]
        step = torch.searchsorted(cumulative, share, right=True)
        return SIGMA.to(u.device)[step].float()

    def probabilities(self) -> Tensor:
        """Of each time step: ``(1000,)``, float64."""
        result = torch.zeros(STEPS, dtype=torch.float64)
        bounds = zip(self.breakpoints, self.breakpoints[1:], strict=False)
        for weight, (low, high) in zip(self.weights, bounds, strict=True):
            result[low:high] = weight / (high - low)
        return result

    def levels(self, steps: int) -> list[float]:
        """Sigma at ``steps`` evenly spaced time steps, from the last one down to the first.

        Raises:
            UserError: There are not so many.
        """
        if steps > STEPS:
            raise UserError(f"the schedule has {STEPS} time steps, got {steps} sampling steps")
        places = torch.linspace(STEPS - 1, 0, steps, dtype=torch.float64).round().long()
        return [float(sigma) for sigma in SIGMA[places]]
