from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dpbench.core.errors import UserError
from dpbench.core.images import ImageSpec
from dpbench.core.registry import load
from dpbench.generators.diffusion.denoiser import Denoiser
from dpbench.generators.diffusion.preconditioning import ALPHA_BAR, DDPM, SIGMA, STEPS
from dpbench.generators.diffusion.samplers import (
    DiffusionSampler,
    SamplerSettings,
    ddpm_levels,
    karras_levels,
)
from dpbench.runs.hyperparameters import resolve
from tests.support.private import rng


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
        SamplerSettings("ancestral", 200),
        SamplerSettings("ancestral-2m", 30),
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


@pytest.mark.parametrize(("second", "first"), [("heun", "ddim"), ("ancestral-2m", "ancestral")])
def test_the_second_order_is_more_accurate_at_the_same_number_of_noise_levels(second, first):
    def spread_error(settings: SamplerSettings) -> float:
        sampler = DiffusionSampler(GaussianDenoiser(), ImageSpec(1, 8, 8), 2, settings)
        images = sampler.sample(torch.zeros(400, dtype=torch.int64), rng()).float() / 127.5 - 1
        return abs(images.std().item() - 0.2)

    assert spread_error(SamplerSettings(second, 20)) < 0.5 * spread_error(
        SamplerSettings(first, 20)
    )


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


class KnownNoise(nn.Module):
    """The best prediction of the noise in images whose pixels are N(mean, 0.2^2), by label."""

    means = torch.tensor([-0.4, 0.4])
    std = 0.2

    def forward(self, x: Tensor, step: Tensor, labels: Tensor) -> Tensor:
        alpha_bar = ALPHA_BAR[step.long()].float()[:, None, None, None]
        mean = self.means[labels][:, None, None, None]
        variance = alpha_bar * self.std**2 + 1 - alpha_bar
        return (1 - alpha_bar).sqrt() * (x - alpha_bar.sqrt() * mean) / variance


def ddpm_moments(settings: SamplerSettings) -> list[tuple[float, float]]:
    """Mean and standard deviation of each label's samples."""
    sampler = DiffusionSampler(Denoiser(KnownNoise(), DDPM()), ImageSpec(1, 8, 8), 2, settings)
    images = sampler.sample(torch.arange(200) % 2, rng()).float() / 127.5 - 1
    return [(images[label::2].mean().item(), images[label::2].std().item()) for label in (0, 1)]


@pytest.mark.parametrize(
    "settings",
    [
        SamplerSettings("ddim", 250, ddpm_levels, clip=True),
        SamplerSettings("ancestral", 1000, ddpm_levels, clip=True),
        SamplerSettings("ancestral-2m", 250, ddpm_levels, clip=True),
    ],
)
def test_every_solver_draws_the_distribution_whose_noise_is_known(settings):
    for (mean, std), expected in zip(ddpm_moments(settings), (-0.4, 0.4), strict=True):
        assert mean == pytest.approx(expected, abs=0.02)
        assert std == pytest.approx(0.2, abs=0.02)


def by_the_book(
    predict: Callable[[Tensor, int], Tensor], x: Tensor, noises: list[Tensor]
) -> Tensor:
    """Ho et al. 2020, algorithm 2, with the posterior variance of equation 7."""
    beta = 1 - ALPHA_BAR / torch.cat([torch.ones(1).double(), ALPHA_BAR[:-1]])
    for step in range(STEPS - 1, -1, -1):
        share = beta[step] / (1 - ALPHA_BAR[step]).sqrt()
        x = (x - share * predict(x, step)) / (1 - beta[step]).sqrt()
        if step:
            before = 1 - ALPHA_BAR[step - 1]
            x = x + (before / (1 - ALPHA_BAR[step]) * beta[step]).sqrt() * noises.pop(0)
    return x


def test_ancestral_sampling_is_the_algorithm_of_ho_et_al():
    network, label = KnownNoise(), torch.tensor([1])

    def predict(x: Tensor, step: int) -> Tensor:
        return network(x.float(), torch.tensor([step]), label).double()

    settings = SamplerSettings("ancestral", STEPS, ddpm_levels)
    sampler = DiffusionSampler(Denoiser(network, DDPM()), ImageSpec(1, 4, 4), 2, settings)
    drawn = sampler.draw(label, rng(5))
    again = rng(5)
    start, *noises = [torch.randn(1, 1, 4, 4, generator=again).double() for _ in range(STEPS)]
    # ours starts from sigma_T noise, which is x_T up to a factor of 1.00002
    expected = by_the_book(predict, start * (1 - ALPHA_BAR[-1]).sqrt(), noises)
    torch.testing.assert_close(drawn.double(), expected, atol=1e-3, rtol=0)


def test_denoised_images_are_clipped_on_the_way():
    class Wild(nn.Module):
        def forward(self, x: Tensor, step: Tensor, labels: Tensor) -> Tensor:
            return -x

    def largest(clip: bool) -> float:
        settings = SamplerSettings("ddim", 10, ddpm_levels, clip=clip)
        sampler = DiffusionSampler(Denoiser(Wild(), DDPM()), ImageSpec(1, 4, 4), 2, settings)
        return sampler.draw(torch.tensor([0]), rng()).abs().max().item()

    assert largest(clip=True) <= 1
    assert largest(clip=False) > 1


def test_sampling_steps_are_spread_over_the_whole_schedule():
    levels = SamplerSettings("ddim", 25, ddpm_levels).noise_levels()
    places = DDPM().coefficients(torch.tensor(levels))[3].long()
    assert places[0] == STEPS - 1 and places[-1] == 0
    assert (places[:-1] - places[1:]).unique().numel() <= 2
    assert len(SamplerSettings("ddim", STEPS, ddpm_levels).noise_levels()) == STEPS
    with pytest.raises(UserError, match="1001 sampling steps cannot end at 0"):
        SamplerSettings("ddim", STEPS + 1, ddpm_levels)


def test_sampling_ends_where_it_is_told():
    assert karras_levels(25, sigma_min=0.2)[-1] == pytest.approx(0.2)
    assert karras_levels(25, sigma_min=0.2)[0] == karras_levels(25)[0] == pytest.approx(80)
    assert ddpm_levels(25, last=100)[-1] == float(SIGMA[100])
    for wrong in (0.0, 80.0):
        with pytest.raises(UserError, match="sigma_min must lie between 0 and 80"):
            karras_levels(25, sigma_min=wrong)
    for wrong in (-1, STEPS - 24):
        with pytest.raises(UserError, match=f"25 sampling steps cannot end at {wrong}"):
            ddpm_levels(25, last=wrong)


@pytest.mark.parametrize(
    "method, setting, last",
    [("dpdm", "sigma_min=0.2", 0.2), ("dp-ddpm", "last_time_step=100", float(SIGMA[100]))],
)
def test_methods_end_sampling_there(method, setting, last):
    resolved = resolve(load("method", method), method, "smoke", "digits", 1.0, (setting,))
    assert resolved.method.model().sampling.noise_levels()[-1] == pytest.approx(last)


@pytest.mark.parametrize("name", ["dpsyngen-coarse", "dpsyngen-cleaning"])
def test_both_stages_of_a_laptop_preset_take_part_in_its_samples(name):
    method = resolve(load("method", name), name, "laptop", "fashionmnist", 1.0, ()).method
    levels = [math.log(level) for level in method.model().sampling.noise_levels()]
    for low, high in (method.stages.synthetic, method.stages.private):
        assert any(low < level < high for level in levels)


@pytest.mark.parametrize(("lowest", "share"), [(0.1, 0.0), (0.0, 0.179)])
def test_levels_that_no_sample_needs_can_be_left_untrained(lowest, share):
    setting = ("sigma_min=0.1", f"trained_sigma_min={lowest}")
    model = resolve(load("method", "dpdm"), "dpdm", "smoke", "digits", 1.0, setting).method.model()
    images = torch.zeros(2000, 1, 8, 8, dtype=torch.uint8), torch.zeros(2000, dtype=torch.int64)
    _, _, sigma, _ = model.objective(classes=10, multiplicity=1).draw(*images, rng())
    assert (sigma < 0.1).float().mean().item() == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("dpdm", ("sigma_min=0.05",), "sampling ends at sigma 0.05.*--set trained_sigma_min=0.05"),
        ("dpsyngen-cleaning", ("sigma_min=0.1", "trained_sigma_min=0.1"), "all of a stage"),
    ],
)
def test_levels_that_samples_or_a_stage_need_cannot_be_left_untrained(name, settings, said):
    with pytest.raises(UserError, match=said):
        resolve(load("method", name), name, "laptop", "fashionmnist", 1.0, settings)
