from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from dpbench.core.errors import UserError
from dpbench.core.images import ImageSpec
from dpbench.core.streams import initialised
from dpbench.generators.diffusion.ddpm import DDPM
from dpbench.generators.diffusion.denoisers import EDM, EVERYWHERE, Centres, Denoiser, Experts, V
from dpbench.generators.diffusion.objective import DenoisingObjective
from dpbench.generators.diffusion.samplers import DiffusionSampler, SamplerSettings
from dpbench.generators.diffusion.training import set_gradients
from dpbench.generators.diffusion.unet import UNet, UNetSettings
from dpbench.privacy.clipping import as_rows

PARAMETERIZATIONS = [EDM(), V()]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_the_weighted_loss_of_the_network_has_unit_weight_at_every_noise_level(parameterization):
    sigma = torch.tensor([0.002, 0.1, 1.0, 80.0])
    _, c_out, _, _ = parameterization.coefficients(sigma)
    torch.testing.assert_close(parameterization.weight(sigma) * c_out**2, torch.ones(4))


def test_edm_scales_its_input_to_unit_variance():
    sigma = torch.tensor([0.01, 0.5, 10.0])
    _, _, c_in, _ = EDM().coefficients(sigma)
    torch.testing.assert_close(c_in**2 * (sigma**2 + 1 / 3), torch.ones(3))


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


def test_edm_draws_the_stated_log_normal():
    log_sigma = EDM().quantile(torch.rand(100_000, generator=rng()), EVERYWHERE).log()
    assert log_sigma.mean().item() == pytest.approx(-1.2, abs=0.02)
    assert log_sigma.std().item() == pytest.approx(1.2, abs=0.02)


def test_v_draws_t_uniformly_between_the_stated_signal_to_noise_ratios():
    sigma = V().quantile(torch.tensor([0.0, 0.5, 1.0]), EVERYWHERE)
    log_snr = -2 * sigma.log()
    assert log_snr[0].item() == pytest.approx(13, abs=1e-3)
    assert log_snr[2].item() == pytest.approx(-9, abs=1e-3)
    t = sigma.atan()
    assert t[1].item() == pytest.approx((t[0] + t[2]).item() / 2, rel=1e-5)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
@pytest.mark.parametrize("interval", [(2.0, math.inf), (-math.inf, -3.0), (-3.0, 2.0)])
def test_noise_levels_stay_in_their_stage(parameterization, interval):
    sigma = parameterization.quantile(torch.rand(10_000, generator=rng()), interval)
    assert sigma.isfinite().all()
    assert (sigma.log() >= interval[0] - 1e-4).all()
    assert (sigma.log() <= interval[1] + 1e-4).all()
    assert sigma.unique().numel() > 9_000


def test_a_stage_has_the_conditional_distribution_of_rejection_sampling():
    everything = EDM().quantile(torch.rand(400_000, generator=rng()), EVERYWHERE).log()
    rejected = everything[everything > 1.0].quantile(torch.tensor([0.1, 0.5, 0.9]))
    direct = EDM().quantile(torch.rand(100_000, generator=rng(1)), (1.0, math.inf)).log()
    torch.testing.assert_close(
        direct.quantile(torch.tensor([0.1, 0.5, 0.9])), rejected, atol=0.02, rtol=0
    )


def test_labels_are_dropped_once_for_all_copies_at_the_stated_rate():
    objective = DenoisingObjective(EDM(), multiplicity=4, null_label=10, label_dropout=0.1)
    pixels = torch.zeros(5000, 1, 2, 2, dtype=torch.uint8)
    _, _, _, labels = objective.draw(pixels, torch.zeros(5000, dtype=torch.int64), rng())
    assert (labels == labels[:, :1]).all()
    assert (labels[:, 0] == 10).float().mean().item() == pytest.approx(0.1, abs=0.015)


def test_a_perfect_denoiser_has_no_loss_and_an_imperfect_one_has():
    objective = DenoisingObjective(EDM(), 3, 10, 0.0)
    pixels = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8, generator=rng())
    copies = objective.draw(pixels, torch.zeros(4, dtype=torch.int64), rng())
    clean = as_rows(copies[0])
    assert objective.loss(lambda *_: clean, *copies).max() == 0
    assert objective.loss(lambda x, *_: x, *copies).min() > 0


def test_the_paper_network_has_the_stated_size_and_keeps_the_image_shape():
    network = UNet(ImageSpec(1, 28, 28), 10, UNetSettings())
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(1.75e6, rel=0.02)
    x = torch.zeros(2, 1, 28, 28)
    assert network(x, torch.zeros(2), torch.tensor([0, 10])).shape == x.shape


@pytest.mark.parametrize(
    "spec, settings",
    [
        (ImageSpec(1, 16, 16), UNetSettings(16, (1,), 1, (4,), patch=4)),
        (ImageSpec(3, 32, 32), UNetSettings(16, (1, 2), 1, (8,), patch=2)),
        (ImageSpec(1, 28, 28), UNetSettings(16, (1, 2, 2), 2, (7,))),
    ],
)
def test_examples_do_not_influence_each_other(spec, settings):
    network = initialised(UNet, spec, 10, settings, seed=0)
    for parameter in network.parameters():  # away from the zero output it starts with
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=rng()))
    x = torch.randn(3, *spec.shape, generator=rng())
    levels, labels = torch.tensor([0.1, -0.2, 0.5]), torch.tensor([1, 2, 3])
    together = network(x, levels, labels)
    alone = network(x[1:2], levels[1:2], labels[1:2])
    torch.testing.assert_close(together[1:2], alone, atol=1e-4, rtol=1e-4)
    assert together.std() > 0.01


def test_labels_and_noise_levels_change_the_output():
    network = initialised(UNet, ImageSpec(1, 8, 8), 10, UNetSettings(16, (1,), 1, ()), seed=0)
    for parameter in network.parameters():
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=rng()))
    x = torch.randn(1, 1, 8, 8, generator=rng()).expand(3, -1, -1, -1)
    out = network(x, torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0, 1, 0]))
    assert (out[0] - out[1]).abs().max() > 1e-3
    assert (out[0] - out[2]).abs().max() > 1e-3


def test_a_size_that_cannot_be_halved_is_refused_in_one_line():
    with pytest.raises(UserError, match="cannot be cut"):
        UNet(ImageSpec(1, 28, 28), 10, UNetSettings(channel_mult=(1, 2, 2, 2)))


class Constant(nn.Module):
    """A network that says the same of every pixel."""

    def __init__(self, says: float) -> None:
        super().__init__()
        self.says = says

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor) -> Tensor:
        return torch.full_like(x, self.says)


class GaussianDenoiser(nn.Module):
    """The best denoiser of images whose pixels are N(mean, std^2), mean given by the label."""

    means = torch.tensor([-0.4, 0.4, 0.0])
    std = 0.2

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        share = self.std**2 / (self.std**2 + sigma**2)[:, None, None, None]
        mean = self.means[labels][:, None, None, None]
        return mean + share * (x - mean)


@pytest.mark.parametrize(
    "settings",
    [
        SamplerSettings("ddim", 50),
        SamplerSettings("ddim-stochastic", 200),
        SamplerSettings("heun", 30),
        SamplerSettings("heun", 60, churn=20.0, churn_min=0.05),
    ],
)
def test_every_solver_draws_the_distribution_that_its_denoiser_knows(settings):
    sampler = DiffusionSampler(GaussianDenoiser(), ImageSpec(1, 8, 8), 2, settings)
    images = sampler.sample(torch.arange(400) % 2, rng()).float() / 127.5 - 1
    for label, mean in ((0, -0.4), (1, 0.4)):
        own = images[label::2]
        assert own.mean().item() == pytest.approx(mean, abs=0.02)
        assert own.std().item() == pytest.approx(0.2, abs=0.03)


def test_heun_is_more_accurate_than_ddim_at_the_same_number_of_noise_levels():
    def spread_error(settings: SamplerSettings) -> float:
        sampler = DiffusionSampler(GaussianDenoiser(), ImageSpec(1, 8, 8), 2, settings)
        images = sampler.sample(torch.zeros(400, dtype=torch.int64), rng()).float() / 127.5 - 1
        return abs(images.std().item() - 0.2)

    heun, ddim = (spread_error(SamplerSettings(name, 20)) for name in ("heun", "ddim"))
    assert heun < 0.5 * ddim


def test_guidance_moves_away_from_the_unconditional_mean():
    def mean(guidance: float) -> float:
        settings = SamplerSettings("heun", 20, guidance=guidance)
        sampler = DiffusionSampler(GaussianDenoiser(), ImageSpec(1, 8, 8), 2, settings)
        return sampler.sample(torch.ones(200, dtype=torch.int64), rng()).float().mean().item()

    assert mean(0.5) > mean(0.0) + 10


def test_noise_levels_fall_from_the_highest_to_the_lowest():
    levels = SamplerSettings(steps=50).noise_levels()
    assert levels == sorted(levels, reverse=True)
    assert levels[0] == pytest.approx(80)
    assert levels[-1] == pytest.approx(0.002)
    # of DPDM's 50 levels, 19 lie in the coarse and 9 in the cleaning stage of DP-SynGen
    assert sum(math.log(level) > 2 for level in levels) == 19
    assert sum(math.log(level) < -3 for level in levels) == 9


def test_samples_do_not_depend_on_the_number_of_cores(monkeypatch):
    sampler = DiffusionSampler(
        GaussianDenoiser(), ImageSpec(1, 8, 8), 2, SamplerSettings(steps=5), batch_size=10
    )
    labels = torch.arange(40) % 2
    several = sampler.sample(labels, rng())
    monkeypatch.setattr("dpbench.parallel.cores.core_count", lambda: 1)
    assert torch.equal(sampler.sample(labels, rng()), several)


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


def test_gradients_in_pieces_are_those_of_the_whole_batch():
    network = initialised(UNet, ImageSpec(1, 8, 8), 3, UNetSettings(16, (1,), 1, ()), seed=0)
    denoiser = Denoiser(network, EDM())
    objective = DenoisingObjective(EDM(), 2, 3, 0.1)
    pixels = torch.randint(0, 256, (7, 1, 8, 8), dtype=torch.uint8, generator=rng())
    copies = objective.draw(pixels, torch.arange(7) % 3, rng())
    objective.loss(denoiser, *copies).mean().backward()
    expected = [p.grad.clone() for p in denoiser.parameters()]
    set_gradients(denoiser, objective, copies)
    for parameter, gradient in zip(denoiser.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-6, rtol=1e-4)
