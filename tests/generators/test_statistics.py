"""Means and deviations of classes by noisy sums, and the denoiser that is given them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from dpbench.core.errors import UserError
from dpbench.core.images import Images, ImageSpec
from dpbench.core.streams import Streams
from dpbench.generators._moments import low_frequencies
from dpbench.generators._statistics import (
    release_statistics,
    statistics_events,
    statistics_of,
)
from dpbench.generators.diffusion.denoiser import ClassStatistics, Denoiser, Statistics
from dpbench.generators.diffusion.model import DiffusionModel
from dpbench.generators.diffusion.preconditioning import DDPM, EDM, V
from dpbench.generators.dpsyngen import DPSynGen
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.epsilon import epsilon
from dpbench.privacy.ledger import PrivacyLedger
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo
from tests.support.private import KEY, rng

INFO = PrivateSetInfo("blobs", ImageSpec(1, 8, 8), 2, 2000)
SIZES = {0: 500, 1: 1500}


def blobs() -> Images:
    """Two classes of unequal size: dark and bright images, some more than others."""
    labels = torch.cat([torch.full((count,), label) for label, count in SIZES.items()])
    light = 60 + 50 * labels[:, None, None] + 10 * torch.randn(len(labels), 1, 1, generator=rng())
    slope = torch.linspace(-20, 20, 8)[None, :, None]
    pixels = (light + slope).expand(-1, 8, 8).clamp(0, 255).byte()
    return Images(pixels[:, None].contiguous(), labels)


def released(images: Images, budget: float) -> ClassStatistics:
    ledger = PrivacyLedger(PrivacyBudget(budget))
    private = PrivateImages(images, INFO, ledger, Streams(0, KEY))
    return release_statistics(private, statistics_events(INFO, ledger.budget))


def smooth(images: Tensor) -> Tensor:
    waves = low_frequencies(INFO.spec, 16)
    return (images.flatten(1) @ waves.T @ waves).view_as(images)


def test_without_noise_what_is_released_are_the_low_frequencies_of_the_statistics():
    found, exact = released(blobs(), math.inf), statistics_of(blobs(), 2)
    torch.testing.assert_close(found.means, smooth(exact.means), atol=1e-4, rtol=0)
    # the squares are of distances to the released means, which lack the high frequencies
    torch.testing.assert_close(found.variances, smooth(exact.variances), atol=1e-3, rtol=0)


def test_noise_moves_what_is_released_and_all_of_the_budget_is_spent():
    exact = statistics_of(blobs(), 2)
    near, far = ((released(blobs(), eps).means - exact.means).norm() for eps in (10.0, 0.5))
    assert 0 < near < far
    assert 0.98 < epsilon(statistics_events(INFO, PrivacyBudget(1.0)), 1e-5) <= 1.0


def test_variances_are_positive_where_noise_says_otherwise():
    assert released(blobs(), 0.1).variances.min() > 0


def test_a_class_without_images_has_the_statistics_of_all():
    found = statistics_of(blobs(), 3)
    rows = blobs().pixels.float() / 255
    torch.testing.assert_close(found.means[2], rows.mean(0))
    torch.testing.assert_close(found.variances[2], rows.var(0, correction=0))


class Sees(nn.Module):
    """Notes what it is shown and told, and says nothing of it."""

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor) -> Tensor:
        self.seen, self.told = x, labels
        return torch.zeros_like(x[:, :1])


@pytest.mark.parametrize("parameterization", [EDM(), V(), DDPM()])
def test_denoising_starts_from_the_given_normal_distributions_which_the_network_sees(
    parameterization,
):
    """Karras et al. 2022, appendix B: with a network that says 0."""
    network = Sees()
    model = DiffusionModel(
        network=lambda *arguments, **options: network,
        parameterization=parameterization,
        sampling=DPSynGen().model().sampling,
        precision="float32",
        average_decay=0.9,
        centre_learning_rate=0.0,
        centre_widths=False,
        statistics=True,
    )
    given = ClassStatistics(
        torch.rand(2, 1, 2, 2, generator=rng(1)), torch.rand(2, 1, 2, 2, generator=rng(2)) / 10
    )
    network.register_parameter("weight", nn.Parameter(torch.zeros(1)))
    plain = Denoiser(network, parameterization)
    denoiser = model.given(plain, given)
    labels, sigma = torch.tensor([1, 0, 1]), torch.tensor([0.1, 1.0, 80.0])
    x = torch.randn(3, 1, 2, 2, generator=rng(3))
    means, variances = 2 * given.means[labels] - 1, 4 * given.variances[labels]
    gain = variances / (variances + sigma[:, None, None, None] ** 2)
    torch.testing.assert_close(
        denoiser(x, sigma, labels), means + gain * (x - means), rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(network.seen[:, 1:2], means)
    torch.testing.assert_close(network.seen[:, 2:], variances.sqrt())
    assert not network.told.any(), "the network is not told the label"


def test_the_null_class_is_all_classes_together():
    images = blobs()
    exact = statistics_of(Images(images.pixels[:1000], torch.arange(1000) % 2), 2)
    centres = Statistics(exact.means, exact.variances, data_variance=1.0)
    means, variances = centres(torch.tensor([2]))
    rows = images.pixels[:1000].float() / 255
    torch.testing.assert_close(means[0], rows.mean(0), atol=1e-4, rtol=0)
    torch.testing.assert_close(variances[0], rows.var(0, correction=0), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"statistics_share": 1.0}, "statistics_share must lie in"),
        ({"synthetic_classes": 40}, "synthetic_classes needs class statistics"),
        (
            {"statistics_share": 0.5, "centre_learning_rate": 0.004},
            "centres are learnt or given",
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        DPSynGen(**values)
