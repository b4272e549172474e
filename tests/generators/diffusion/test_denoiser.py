from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from dpbench.core.images import ImageSpec
from dpbench.generators.diffusion.denoiser import Centres, Denoiser, Experts
from dpbench.generators.diffusion.preconditioning import DDPM, EDM, V
from tests.support.private import rng

PARAMETERIZATIONS = [EDM(), V()]


class Constant(nn.Module):
    """A network that says the same of every pixel."""

    def __init__(self, says: float) -> None:
        super().__init__()
        self.says = says

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor) -> Tensor:
        return torch.full_like(x, self.says)


def normals(widths: bool) -> tuple[Centres, Tensor, Tensor, Tensor]:
    """Centres of two classes; labels of three images, with means and variances."""
    centres = Centres(ImageSpec(1, 2, 2), 2, widths)
    for parameter in centres.parameters():
        parameter.data.normal_(std=0.1, generator=rng())
    labels = torch.tensor([1, 0, 1])
    means, variances = centres(labels)
    assert not torch.equal(means[0], means[1])
    assert torch.equal(variances[0], variances[1]) is not widths
    return centres, labels, means, variances


@pytest.mark.parametrize("parameterization", [*PARAMETERIZATIONS, DDPM()])
@pytest.mark.parametrize("widths", [False, True])
def test_centres_make_the_optimal_denoiser_of_normal_distributions_around_them(
    parameterization, widths
):
    """Karras et al. 2022, appendix B: with a network that says 0."""
    centres, labels, means, variances = normals(widths)
    variances = getattr(parameterization, "sigma_data", 1.0) ** 2 * variances
    sigma = torch.tensor([0.1, 1.0, 80.0])
    x = torch.randn(3, 1, 2, 2, generator=rng(1))
    gain = variances / (variances + sigma[:, None, None, None] ** 2)
    denoiser = Denoiser(Constant(0.0), parameterization, centres=centres)
    torch.testing.assert_close(denoiser(x, sigma, labels), means + gain * (x - means))


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
@pytest.mark.parametrize("widths", [False, True])
def test_a_network_moves_pixels_in_units_of_their_posterior_deviation(parameterization, widths):
    centres, labels, _, variances = normals(widths)
    variances = getattr(parameterization, "sigma_data", 1.0) ** 2 * variances
    sigma = torch.tensor([0.1, 1.0, 80.0])
    x = torch.randn(3, 1, 2, 2, generator=rng(1))
    noise = sigma[:, None, None, None] ** 2
    still, moved = (
        Denoiser(Constant(says), parameterization, centres=centres)(x, sigma, labels)
        for says in (0.0, 1.0)
    )
    torch.testing.assert_close(moved - still, (variances * noise / (variances + noise)).sqrt())


def test_widths_stay_within_their_limits():
    centres = Centres(ImageSpec(1, 1, 2), 0, widths=True)
    centres.widths.weight.data = torch.tensor([[-1e3, 1e3]])
    _, variances = centres(torch.tensor([0]))
    torch.testing.assert_close(variances.flatten().log(), torch.tensor([-10.0, 2.0]))


def test_experts_are_asked_on_their_own_side_of_the_threshold():
    class Says(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = value

        def forward(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
            return torch.full_like(x, self.value)

    experts = Experts(below=Says(-1), above=Says(1), threshold=math.exp(2))
    x, labels = torch.zeros(1, 1, 2, 2), torch.zeros(1, dtype=torch.int64)
    assert experts(x, torch.tensor([7.0]), labels).mean() == -1
    assert experts(x, torch.tensor([8.0]), labels).mean() == 1
