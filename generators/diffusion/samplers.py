"""From noise to images: DDIM, ancestral sampling, its second order, Heun and Heun with churn.

Source: Karras et al. 2022, algorithm 2, and the DPDM code; Ho et al. 2020, algorithm 2, and Song et
al. 2021 (DDIM, arXiv 2010.02502), equation 12, in terms of x / sqrt(abar) and sigma: see
``preconditioning.DDPM``; Lu et al. 2022 (DPM-Solver++, arXiv 2211.01095), SDE-DPM-Solver++(2M).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from dpbench.core.errors import UserError
from dpbench.core.images import ImageSpec
from dpbench.core.pixels import to_pixels
from dpbench.core.state import State
from dpbench.parallel.cores import map_on_cores

from .preconditioning import SIGMA, STEPS

SolverName = Literal["ddim", "ddim-stochastic", "ancestral", "ancestral-2m", "heun"]
DDPMSolverName = Literal["ancestral", "ancestral-2m", "ddim"]
SIGMA_MIN = 0.002  # of Karras et al. 2022
SOLVERS = frozenset(get_args(SolverName) + get_args(DDPMSolverName))


def karras_levels(steps: int, sigma_min: float = SIGMA_MIN) -> list[float]:
    """Noise levels of Karras et al. 2022, equation 5: ``steps`` values of sigma, falling.

    They are evenly spaced in sigma^(1 / rho), from 80 to ``sigma_min`` in units of [-1, 1] images.

    Raises:
        UserError: ``sigma_min`` is not between 0 and 80.
    """
    sigma_max, rho = 80.0, 7.0
    if not 0 < sigma_min < sigma_max:
        raise UserError(f"sigma_min must lie between 0 and {sigma_max:g}, got {sigma_min:g}")
    top, bottom = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [(top + i / (steps - 1) * (bottom - top)) ** rho for i in range(steps)]


def ddpm_levels(steps: int, last: int = 0) -> list[float]:
    """Noise levels of DDPM: sigma at ``steps`` evenly spaced time steps, falling to ``last``.

    Raises:
        UserError: The schedule has fewer time steps down to ``last``.
    """
    if last < 0 or steps > STEPS - last:
        raise UserError(
            f"the schedule has the time steps 0 to {STEPS - 1}: {steps} sampling steps cannot end "
            f"at {last}"
        )
    places = torch.linspace(STEPS - 1, last, steps, dtype=torch.float64).round().long()
    return [float(sigma) for sigma in SIGMA[places]]


@dataclass(frozen=True)
class SamplerSettings:
    """How images are drawn from a denoiser.

    Attributes:
        solver: ``ddim`` (Euler), ``ddim-stochastic`` (a step of twice the length, and noise),
            ``ancestral`` (DDPM's posterior), ``ancestral-2m`` (the same in second order, which
            takes the denoised image's change from the step before) or ``heun`` (second order, two
            network evaluations a step).
        steps: Number of noise levels.
        levels: From their number to the noise levels, values of sigma, falling.
        churn: S_churn of ``heun``: 0 is deterministic.
        churn_min: S_min: churn only at noise levels above it.
        churn_max: S_max: churn only at noise levels below it.
        guidance: w of (1 + w) D(x; label) - w D(x; no label); 0 is none.
        clip: Whether denoised images are clipped to [-1, 1] at every step.
    """

    solver: SolverName | DDPMSolverName = "ddim"
    steps: int = 50
    levels: Callable[[int], list[float]] = karras_levels
    churn: float = 0.0
    churn_min: float = 0.0
    churn_max: float = 50.0
    guidance: float = 0.0
    clip: bool = False

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UserError: A value is out of its range.
        """
        if self.solver not in SOLVERS:
            known = ", ".join(sorted(SOLVERS))
            raise UserError(f"unknown solver {self.solver!r}: choose one of {known}")
        if self.steps < 2:
            raise UserError(f"sampling needs at least 2 steps, got {self.steps}")
        self.noise_levels()

    def noise_levels(self) -> list[float]:
        """``steps`` values of sigma, falling."""
        return self.levels(self.steps)


@dataclass(frozen=True)
class DiffusionSampler:
    """Draws images from a trained denoiser.

    Attributes:
        denoiser: ``(x, sigma (B,), labels (B,)) -> denoised``.
        spec: Shape of the images.
        null_label: Index of the null (unconditional) class.
        settings: How to draw.
        batch_size: Number of images drawn at once.
    """

    denoiser: nn.Module
    spec: ImageSpec
    null_label: int
    settings: SamplerSettings
    batch_size: int = 250

    def sample(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Draw one image for each label: ``(N,)`` int64 to ``(N, C, H, W)`` uint8, on the CPU."""
        self.denoiser.to(rng.device).eval()

        def drawn(work: tuple[Tensor, torch.Generator]) -> Tensor:
            return to_pixels(self.draw(*work)).cpu()

        batches = list(map_on_cores(drawn, self._batches(labels, rng), rng.device))
        return torch.cat(batches) if batches else torch.empty(0, *self.spec.shape).byte()

    def state(self) -> State:
        """The denoiser's weights."""
        return self.denoiser.state_dict()

    def _batches(
        self, labels: Tensor, rng: torch.Generator
    ) -> Iterator[tuple[Tensor, torch.Generator]]:
        """Split labels into batches, each with its own generator, to be drawn concurrently."""
        for part in torch.split(labels, self.batch_size):
            seed = int(torch.randint(2**62, (), generator=rng, device=rng.device))
            yield part.to(rng.device), torch.Generator(rng.device).manual_seed(seed)

    @torch.no_grad()  # here, because it holds for the calling thread only
    def draw(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Draw one batch on the device of ``rng``: ``(B,)`` int64 to ``(B, C, H, W)`` float32."""

        def noise() -> Tensor:
            shape = (len(labels), *self.spec.shape)
            return torch.randn(shape, generator=rng, device=rng.device)

        def denoise(x: Tensor, sigma: float) -> Tensor:
            sigmas = torch.full((len(labels),), sigma, device=rng.device)
            result: Tensor = self.denoiser(x, sigmas, labels)
            if self.settings.guidance:
                null = torch.full_like(labels, self.null_label)
                w = self.settings.guidance
                result = (1 + w) * result - w * self.denoiser(x, sigmas, null)
            return result.clamp(-1, 1) if self.settings.clip else result

        x = noise() * self.settings.noise_levels()[0]
        if self.settings.solver == "heun":
            return self._heun(x, denoise, noise)
        return self._one_evaluation(x, denoise, noise)

    def _one_evaluation(
        self, x: Tensor, denoise: Callable[[Tensor, float], Tensor], noise: Callable[[], Tensor]
    ) -> Tensor:
        solver, levels = self.settings.solver, self.settings.noise_levels()
        before: tuple[Tensor, float] | None = None
        for sigma, following in zip(levels[:-1], levels[1:], strict=True):
            denoised = denoise(x, sigma)
            slope = (x - denoised) / sigma
            if solver == "ddim":
                x = x + (following - sigma) * slope
            elif solver == "ddim-stochastic":  # twice the step, and noise that makes up for it
                x = x + 2 * (following - sigma) * slope
                x = x + math.sqrt(2 * (sigma - following) * sigma) * noise()
            else:  # from the posterior of DDPM, given x and the clean image
                clean = denoised
                if solver == "ancestral-2m" and before:  # as it will be halfway, in ln sigma
                    steps = math.log(sigma / following) / math.log(before[1] / sigma)
                    clean = denoised + steps / 2 * (denoised - before[0])
                kept = (following / sigma) ** 2
                x = clean + kept * (x - clean) + following * math.sqrt(1 - kept) * noise()
            before = denoised, sigma
        return denoise(x, levels[-1])

    def _heun(
        self, x: Tensor, denoise: Callable[[Tensor, float], Tensor], noise: Callable[[], Tensor]
    ) -> Tensor:
        settings, levels = self.settings, self.settings.noise_levels()
        for sigma, following in zip(levels, [*levels[1:], 0.0], strict=True):
            churned = sigma
            if settings.churn and settings.churn_min <= sigma <= settings.churn_max:
                churned = sigma * (1 + min(settings.churn / settings.steps, 1.0))
                x = x + math.sqrt(churned**2 - sigma**2) * noise()
            slope = (x - denoise(x, churned)) / churned
            ahead = x + (following - churned) * slope
            if following:
                slope_ahead = (ahead - denoise(ahead, following)) / following
                ahead = x + (following - churned) * (slope + slope_ahead) / 2
            x = ahead
        return x
