"""Scattering coefficients, and the generator that is matched to their mean embeddings."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dpbench.api.method import RunContext
from dpbench.api.profiles import SMOKE
from dpbench.core.errors import UserError
from dpbench.core.images import Images, ImageSpec
from dpbench.core.progress import Silent
from dpbench.core.streams import Streams
from dpbench.data.load import load as load_dataset
from dpbench.generators._matching import ClassGenerator
from dpbench.generators._scattering import (
    ORIENTATIONS,
    coefficients,
    count_coefficients,
    morlet_filters,
)
from dpbench.generators.dp_scattering import DPScattering
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.ledger import PrivacyLedger
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo
from tests.support.private import KEY, rng

CPU = torch.device("cpu")
FILTERS = morlet_filters()
SMALL = DPScattering(
    features=240,
    kernel_widths=(0.15, 0.3, 0.6),  # learnt in few steps
    channels=8,
    generator_steps=150,
    generator_batch_size=100,
)


def handle(images: Images, classes: int, epsilon: float) -> PrivateImages:
    info = PrivateSetInfo("set", images.spec, classes, len(images))
    return PrivateImages(images, info, PrivacyLedger(PrivacyBudget(epsilon)), Streams(0, KEY))


def stripes(angle: float, phase: float = 0.0) -> Tensor:
    """One image of 28 pixels with waves along a direction, at the filters' frequency."""
    y, x = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    along = x * math.cos(angle) + y * math.sin(angle)
    return (0.5 + 0.5 * torch.sin(3 * math.pi / 4 * along + phase))[None, None]


def energies(image: Tensor) -> Tensor:
    """The mean energy of each orientation at the finer scale."""
    found = coefficients(image, FILTERS)[0, 14 * 14 :]
    return found[: ORIENTATIONS * 49].view(ORIENTATIONS, 49).mean(1)


def test_filters_see_no_constant_and_have_norm_1():
    assert FILTERS.sum((1, 2, 3)).abs().max() < 1e-5
    assert torch.allclose(FILTERS.square().sum((1, 2, 3)), torch.ones(2 * ORIENTATIONS))


@pytest.mark.parametrize("orientation", range(ORIENTATIONS))
def test_energies_tell_the_direction_and_not_the_phase(orientation):
    angle = math.pi * orientation / ORIENTATIONS
    found = energies(stripes(angle))
    assert found.argmax() == orientation
    assert torch.allclose(energies(stripes(angle, phase=1.0)), found, atol=0.02)


@pytest.mark.parametrize("spec", [ImageSpec(1, 28, 28), ImageSpec(3, 32, 32), ImageSpec(2, 9, 13)])
def test_the_number_of_coefficients_is_known_beforehand(spec):
    found = coefficients(torch.rand(2, *spec.shape), FILTERS)
    assert found.shape == (2, count_coefficients(spec))


def test_without_noise_the_release_is_the_mean_of_each_class_whatever_its_size():
    digits = load_dataset("digits", None, Silent()).splits.train
    few = torch.cat([(digits.labels == 0).nonzero()[:20, 0], (digits.labels == 1).nonzero()[:, 0]])
    images = digits[few]
    embedding = SMALL.embedding(images.spec, Streams(0), CPU)
    target = SMALL.release(handle(images, 2, math.inf), embedding)
    for label in range(2):
        rows = embedding(images.pixels[images.labels == label].float() / 255)
        assert torch.allclose(rows.norm(dim=1), torch.ones(len(rows)), atol=1e-4)
        # a class of 20 images of 165 is more than a tenth of an equal share
        assert torch.allclose(target[label], rows.mean(0), atol=1e-4)


class Fixed(ClassGenerator):
    """Draws each image from a few, evenly: as varied as what it should match."""

    def __init__(self, images: Tensor) -> None:
        super().__init__(classes=1, code_size=1)
        self.images = images

    def forward(self, codes: Tensor, labels: Tensor) -> Tensor:
        uniform = torch.special.ndtr(codes[:, 0])
        return self.images[(uniform * len(self.images)).long().clamp(max=len(self.images) - 1)]


def test_the_mismatch_of_a_perfect_generator_is_0_in_the_mean():
    images = torch.rand(8, 1, 16, 16, generator=rng(1))
    embedding = SMALL.embedding(ImageSpec(1, 16, 16), Streams(0), CPU)
    target = embedding(images).mean(0, keepdim=True)

    def average(estimate) -> float:
        return sum(estimate(rng(seed)).item() for seed in range(400)) / 400

    generator = Fixed(images)
    unbiased = average(lambda r: SMALL.loss(generator, target, embedding, 4, r))

    def biased(r: torch.Generator) -> Tensor:
        """The estimate of DP-MERF, which counts the chance of a batch of 4."""
        rows = embedding(generator(torch.randn(4, 1, generator=r), torch.zeros(4).long()))
        return (rows.mean(0) - target[0]).square().sum()

    chance = (1 - target.square().sum().item()) / 4
    assert abs(unbiased) < 0.2 * chance
    assert average(biased) == pytest.approx(chance, rel=0.2)


@pytest.mark.slow
def test_images_are_of_their_class_and_not_all_alike(tmp_path: Path):
    train = load_dataset("digits", None, Silent()).splits.train
    run = RunContext(SMOKE, CPU, Streams(0), Silent(), tmp_path)
    sampler = SMALL.fit(handle(train, 10, math.inf), run)
    real = torch.stack([train.pixels[train.labels == c].float().mean(0) for c in range(10)])
    labels = torch.arange(200) % 10
    made = sampler.sample(labels, rng()).float()
    nearest = torch.cdist(made.flatten(1), real.flatten(1)).argmin(1)
    assert (nearest == labels).float().mean() > 0.6
    assert made[labels == 0].std(dim=0).mean() > 5


@pytest.mark.parametrize(
    "values, message",
    [
        ({"kernel_widths": ()}, "kernel_widths must be one number or more"),
        ({"kernel_widths": (0.1, 0.0)}, "kernel_widths must be one number or more"),
        ({"features": 4}, "features must be at least 6"),
        ({"channels": 0}, "channels must be at least 1"),
    ],
)
def test_values_out_of_range_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        DPScattering(**values)
