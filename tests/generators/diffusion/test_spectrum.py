"""A Wiener filter for images whose variance falls with frequency."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dpbench.core.errors import UserError
from dpbench.core.images import ImageSpec
from dpbench.core.registry import load
from dpbench.generators.diffusion.denoiser import Centres, Denoiser, Statistics
from dpbench.generators.diffusion.preconditioning import EDM
from dpbench.generators.diffusion.spectrum import Spectrum

SPEC = ImageSpec(2, 5, 4)
SIDE = SPEC.height * SPEC.width


def covariance(spectrum: Spectrum) -> Tensor:
    """That of the filter's distribution, ``(H * W, H * W)``."""
    waves = torch.kron(spectrum.down, spectrum.across)
    return waves.T @ (spectrum.variances.flatten()[:, None] * waves)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("noise", [0.01, 1.0, 50.0])
def test_the_estimate_is_the_posterior_mean(exponent: float, noise: float) -> None:
    spectrum = Spectrum(SPEC, exponent)
    noisy = torch.randn(3, *SPEC.shape, generator=torch.Generator().manual_seed(0))
    found, _ = spectrum(noisy, torch.full((3, 1, 1, 1), noise))
    own = covariance(spectrum)
    gain = own @ torch.linalg.inv(own + noise * torch.eye(SIDE))
    expected = (noisy.flatten(2) @ gain.T).view_as(noisy)
    assert torch.allclose(found, expected, atol=1e-5)


def test_variance_is_one_on_average_and_falls_with_frequency() -> None:
    own = covariance(Spectrum(SPEC, 2.0))
    assert own.trace() == pytest.approx(SIDE)
    variances = Spectrum(SPEC, 2.0).variances
    assert variances[0, 0] == variances.max() and variances[-1, -1] == variances.min()
    assert variances[0, 0] / variances[0, 1] == pytest.approx(4.0)
    assert torch.equal(Spectrum(SPEC, 0.0).variances, torch.ones(5, 4))


def test_what_is_left_of_the_noise_is_what_comes_of_noise_alone() -> None:
    rng = torch.Generator().manual_seed(0)
    noise = torch.tensor([0.1, 2.0])[:, None, None, None]
    draws = torch.randn(4000, 2, *SPEC.shape, generator=rng) * noise.sqrt()
    spectrum = Spectrum(SPEC, 2.0)
    left = torch.stack([spectrum(each, noise)[0] for each in draws]).square().mean((0, 2, 3, 4))
    assert torch.allclose(left, spectrum(draws[0], noise)[1].flatten(), rtol=0.02)


class Nothing(nn.Module):
    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        self.channels = spec.channels

    def forward(self, x: Tensor, noise: Tensor, labels: Tensor) -> Tensor:
        return torch.zeros_like(x[:, : self.channels])


def test_denoising_starts_closer_to_natural_images_than_without() -> None:
    rng = torch.Generator().manual_seed(0)
    spec = ImageSpec(1, 12, 12)
    spectrum = Spectrum(spec, 2.0)
    waves = torch.randn(500, 1, 12, 12, generator=rng) * spectrum.variances.sqrt()
    images = 0.5 * spectrum.down.T @ waves @ spectrum.across
    labels = torch.zeros(500, dtype=torch.long)
    for sigma, share in ((0.2, 0.9), (1.0, 0.9), (10.0, 1.0)):
        noisy = images + sigma * torch.randn(images.shape, generator=rng)
        errors = []
        for exponent in (0.0, 2.0):
            centres = Centres(spec, 1, widths=True, exponent=exponent)
            denoiser = Denoiser(Nothing(spec), EDM(), centres=centres)
            with torch.no_grad():
                estimate = denoiser(noisy, torch.full((500,), sigma), labels)
            errors.append(float((estimate - images).square().mean()))
        assert errors[1] < share * errors[0], sigma


def test_a_spectrum_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="there are none: --set natural_spectrum=0"):
        load("method", "dpdm")(natural_spectrum=2.0)


def test_distributions_that_are_given_have_one_too() -> None:
    means, variances = torch.zeros(2, *SPEC.shape), torch.ones(2, *SPEC.shape)
    data = EDM().sigma_data ** 2
    centres = Statistics(means, variances, data_variance=data, exponent=2.0)
    network = Denoiser(Nothing(SPEC), EDM(), centres=centres)
    noisy = torch.randn(3, *SPEC.shape, generator=torch.Generator().manual_seed(0))
    found = network(noisy, torch.full((3,), 2.0), torch.tensor([0, 1, 2]))
    smooth, left = Spectrum(SPEC, 2.0)(noisy, torch.full((3, 1, 1, 1), 2.0**2 / data))
    assert torch.allclose(found, smooth / (1 + left * data), atol=1e-6)


def test_a_spectrum_belongs_to_no_state() -> None:
    names = Centres(SPEC, 2, widths=True, exponent=2.0).state_dict().keys()
    assert names == Centres(SPEC, 2, widths=True).state_dict().keys()
