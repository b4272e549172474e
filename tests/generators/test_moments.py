"""Class moments by noisy sums, and what starts from them."""

from __future__ import annotations

import math

import pytest
import torch

from dpbench.core.errors import UserError
from dpbench.core.images import Images, ImageSpec
from dpbench.core.streams import Streams
from dpbench.generators._moments import (
    ClassGaussians,
    MomentReleases,
    denoised,
    low_frequencies,
    outer_products,
    symmetric,
)
from dpbench.generators.diffusion.denoiser import Denoiser
from dpbench.generators.diffusion.preconditioning import EDM
from dpbench.generators.dpdm_central import CentralDenoiser
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.epsilon import epsilon
from dpbench.privacy.ledger import PrivacyLedger
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo
from tests.support.private import KEY, rng

INFO = PrivateSetInfo("striped", ImageSpec(1, 6, 6), 2, 4000)


def striped(count: int) -> Images:
    """Two classes: rows, or columns, of random brightness around a mean of their own."""
    labels = torch.arange(count) % 2
    lines = (120 + 30 * torch.randn(count, 6, generator=rng(1))).clamp(0, 255)
    pixels = torch.where(labels[:, None, None] == 0, lines[:, :, None] + 40, lines[:, None, :] - 40)
    return Images(pixels.expand(-1, 6, 6).clamp(0, 255).byte()[:, None].contiguous(), labels)


def released(images: Images, budget: float, releases: MomentReleases) -> ClassGaussians:
    ledger = PrivacyLedger(PrivacyBudget(budget))
    private = PrivateImages(images, INFO, ledger, Streams(0, KEY))
    return releases.release(private, releases.releases(INFO, ledger.budget))


def covariance(gaussians: ClassGaussians, label: int) -> torch.Tensor:
    axes = gaussians.axes[label]
    return axes * gaussians.variances[label] @ axes.T


def test_without_noise_and_clipping_the_moments_are_those_of_the_images():
    images = striped(4000)
    releases = MomentReleases(36, 36, 1e3, 1e3, 1e3)
    gaussians = released(images, math.inf, releases)
    for label in range(2):
        rows = images.pixels[images.labels == label].flatten(1).float() / 255
        assert torch.allclose(gaussians.means[label], rows.mean(0), atol=1e-4)
        assert torch.allclose(covariance(gaussians, label), rows.T.cov(correction=0), atol=1e-4)
    assert gaussians.rest < 1e-5


@pytest.mark.parametrize("budget", [4.0, 16.0])
def test_private_moments_tell_the_classes_apart(budget):
    images = striped(4000)
    gaussians = released(images, budget, MomentReleases(36, 36, 0.9, 0.4))
    for label in range(2):
        rows = images.pixels[images.labels == label].flatten(1).float() / 255
        errors = [
            (covariance(gaussians, k) - rows.T.cov(correction=0)).norm() for k in (label, 1 - label)
        ]
        assert errors[0] < 0.5 * errors[1]


def test_the_releases_spend_the_budget_whatever_their_shares():
    for shares in ((0.1, 0.3), (0.5, 0.1)):
        releases = MomentReleases(mean_share=shares[0], common_share=shares[1])
        spent = epsilon(releases.releases(INFO, PrivacyBudget(1.0)), 1e-5)
        assert 0.99 < spent <= 1


def test_what_is_drawn_has_the_moments():
    gaussians = released(striped(4000), math.inf, MomentReleases(36, 36, 1e3, 1e3, 1e3))
    drawn = gaussians.draw(torch.ones(20_000, dtype=torch.int64), rng(2))
    assert torch.allclose(drawn.mean(0), gaussians.means[1], atol=0.01)
    assert torch.allclose(drawn.T.cov(), covariance(gaussians, 1), atol=0.002)


def test_outer_products_keep_the_norm_and_give_the_matrix_back():
    rows = torch.randn(3, 5, generator=rng())
    products = outer_products(rows)
    assert torch.allclose(products.norm(dim=1), rows.square().sum(1))
    assert torch.allclose(symmetric(products[0]), rows[0][:, None] * rows[0])


def test_low_frequencies_are_orthonormal_and_start_with_the_mean_of_each_channel():
    waves = low_frequencies(ImageSpec(3, 4, 6), 24)
    assert waves.shape == (24, 72)
    assert torch.allclose(waves @ waves.T, torch.eye(24), atol=1e-6)
    assert torch.allclose(waves[0, :24], torch.full((24,), 24**-0.5), atol=1e-6)


def noisy(size: int, deviation: float, seed: int) -> torch.Tensor:
    return symmetric(deviation * torch.randn(size * size, generator=rng(seed)))


def test_noise_alone_has_no_eigenvalue_that_counts():
    counts = [int((denoised(noisy(80, 0.1, seed), 0.1)[0] != 0).sum()) for seed in range(10)]
    assert sum(counts) <= 3  # the largest fluctuates around the edge


@pytest.mark.parametrize("strength", [1.2, 2.0, -2.0])
def test_an_eigenvalue_beyond_the_noise_is_put_back_to_its_own_size(strength):
    direction = torch.nn.functional.normalize(torch.randn(100, generator=rng(9)), dim=0)
    true = strength * direction[:, None] * direction
    errors, uncorrected = [], []
    for seed in range(20):
        matrix = true + noisy(100, 0.1, seed)
        values, vectors = denoised(matrix, 0.1)
        largest = values.abs().argmax()
        errors.append(float(values[largest]) - strength)
        uncorrected.append(float(vectors[:, largest] @ matrix @ vectors[:, largest]) - strength)
    assert abs(sum(errors) / 20) < 0.05
    assert abs(sum(uncorrected) / 20) > 0.2


def test_classes_of_unequal_size_have_their_own_means():
    images = striped(4000)
    keep = (images.labels == 0) | (torch.arange(4000) % 4 == 1)
    gaussians = released(images[keep], 8.0, MomentReleases(36, 36, 0.9, 0.4))
    for label in range(2):
        rows = images.pixels[keep & (images.labels == label)].flatten(1).float() / 255
        assert (gaussians.means[label] - rows.mean(0)).abs().max() < 0.03


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"frequencies": 0}, "frequencies"),
        ({"class_norm": -1.0}, "class_norm"),
        ({"mean_share": 0.5, "common_share": 0.5}, "add up to less than 0.98"),
    ],
)
def test_values_out_of_range_are_refused(value, message):
    with pytest.raises(UserError, match=message):
        MomentReleases(**value)


class Zero(torch.nn.Module):
    def forward(self, x, noise_level, labels):
        return torch.zeros_like(x)


def test_a_central_denoiser_starts_as_the_posterior_mean_of_its_gaussians():
    axes = torch.linalg.qr(torch.randn(2, 36, 5, generator=rng(3)))[0]
    variances = torch.rand(2, 5, generator=rng(4))
    gaussians = ClassGaussians(torch.rand(2, 36, generator=rng(5)), axes, variances, 0.01)
    denoiser = CentralDenoiser(Denoiser(Zero(), EDM()), gaussians)
    x = torch.randn(6, 1, 6, 6, generator=rng(6))
    labels, sigma = torch.arange(6) % 3, torch.logspace(-2, 1, 6)
    given = denoiser(x, sigma, labels)
    for row, label in enumerate(labels.tolist()):
        if label == 2:  # no label: what EDM starts from
            plain = Denoiser(Zero(), EDM())(x[row:][:1], sigma[row:][:1], labels[row:][:1])
            assert torch.allclose(given[row], plain[0])
            continue
        across = torch.eye(36) - axes[label] @ axes[label].T
        spread = 4 * (covariance(gaussians, label) + 0.01 * across)
        mean = 2 * gaussians.means[label] - 1
        gain = spread @ torch.linalg.inv(spread + sigma[row] ** 2 * torch.eye(36))
        want = mean + gain @ (x[row].flatten() - mean)
        assert torch.allclose(given[row].flatten(), want, atol=1e-4)
