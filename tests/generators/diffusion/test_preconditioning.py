from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from dpbench.core.errors import UserError
from dpbench.generators.diffusion.preconditioning import (
    ALPHA_BAR,
    DDPM,
    EDM,
    EVERYWHERE,
    SIGMA,
    STEPS,
    V,
)
from tests.support.private import rng

PARAMETERIZATIONS = [EDM(), V()]


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_the_weighted_loss_of_the_network_has_unit_weight_at_every_noise_level(parameterization):
    sigma = torch.tensor([0.002, 0.1, 1.0, 80.0])
    _, c_out, _, _ = parameterization.coefficients(sigma)
    torch.testing.assert_close(parameterization.weight(sigma) * c_out**2, torch.ones(4))


def test_edm_scales_its_input_to_unit_variance():
    sigma = torch.tensor([0.01, 0.5, 10.0])
    _, _, c_in, _ = EDM().coefficients(sigma)
    torch.testing.assert_close(c_in**2 * (sigma**2 + 1 / 3), torch.ones(3))


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


CIFAR = DDPM((0.015, 0.785, 0.2), (0, 30, 600, 1000))


def steps_of(sigma: Tensor) -> Tensor:
    return DDPM().coefficients(sigma)[3].long()


def test_the_schedule_is_that_of_ho_et_al():
    # a linear beta from 1e-4 to 0.02, the product taken one by one
    product = 1.0
    for step in range(1000):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * step / 999)
    assert ALPHA_BAR[-1].item() == pytest.approx(product, rel=1e-12)
    assert product == pytest.approx(4.0358e-5, rel=1e-4)
    assert ALPHA_BAR[0].item() == pytest.approx(0.9999, rel=1e-12)


def test_every_level_is_taken_for_its_own_time_step():
    assert torch.equal(steps_of(SIGMA.float()), torch.arange(STEPS))
    shape = (4, 250)
    assert torch.equal(steps_of(SIGMA.float().view(shape)), torch.arange(STEPS).view(shape))


def departure(mixture: DDPM) -> float:
    """The p-value of what a mixture draws against the shares that CIFAR's is stated to have."""
    sigma = mixture.quantile(torch.rand(20_000, generator=rng()), EVERYWHERE)
    found = torch.bincount(
        torch.bucketize(steps_of(sigma), torch.tensor([30, 315, 600, 800]), right=True), minlength=5
    )
    stated = torch.tensor([0.015, 0.785 / 2, 0.785 / 2, 0.1, 0.1], dtype=torch.float64)
    return float(stats.chisquare(found, stated * len(sigma)).pvalue)


def test_time_steps_have_the_shares_of_the_mixture():
    assert departure(CIFAR) > 0.001
    # and uniform ones, or weights that went to the wrong intervals, would be seen
    assert departure(DDPM()) < 1e-9
    assert departure(DDPM((0.2, 0.785, 0.015), (0, 30, 600, 1000))) < 1e-9


def test_every_step_of_the_mixture_is_drawn_and_no_other():
    drawn = steps_of(DDPM((0.5, 0.5), (10, 12, 20)).quantile(torch.linspace(0, 1, 999), EVERYWHERE))
    assert drawn.unique().tolist() == list(range(10, 20))
    assert (drawn < 12).float().mean().item() == pytest.approx(0.5, abs=0.01)


def test_a_stage_of_noise_levels_is_a_part_of_the_mixture():
    interval = (SIGMA[100].log().item() - 1e-6, SIGMA[200].log().item() + 1e-6)
    drawn = steps_of(CIFAR.quantile(torch.linspace(0, 1, 2000), interval))
    assert (drawn.min(), drawn.max()) == (100, 200)


@pytest.mark.parametrize(
    "weights, breakpoints, message",
    [
        ((0.15, 0.785, 0.2), (0, 30, 60, 1000), "add up to 1"),  # as in the paper's section 5.5
        ((0.5, 0.5), (0, 1000), "one breakpoint more"),
        ((0.5, 0.5), (0, 600, 600), "rise within"),
        ((1.0,), (0, 1001), "rise within"),
        ((1.5, -0.5), (0, 10, 20), "0 or more"),
    ],
)
def test_what_is_no_mixture_is_refused(weights, breakpoints, message):
    with pytest.raises(UserError, match=message):
        DDPM(weights, breakpoints)
