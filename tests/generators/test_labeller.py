"""The linear classifier that labels what a generator draws."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from dpbench.core.images import ImageSpec
from dpbench.core.progress import Silent
from dpbench.core.state import State
from dpbench.data.load import load as load_dataset
from dpbench.generators._labeller import LabelledSampler, Labeller, LabellerObjective
from tests.support.private import rng

GREY = ImageSpec(1, 8, 8)


@dataclass(frozen=True)
class Confused:
    """Draws real digits, every third of them of the next class."""

    pixels: Tensor
    labels: Tensor

    def sample(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        wrong = torch.rand(len(labels), generator=rng) < 1 / 3
        drawn = []
        for label in ((labels + wrong) % 10).tolist():
            of_class = (self.labels == label).nonzero()[:, 0]
            drawn.append(of_class[torch.randint(len(of_class), (1,), generator=rng)])
        return self.pixels[torch.cat(drawn)]

    def state(self) -> State:
        return {}


def digits():
    return load_dataset("digits", None, Silent()).splits


@pytest.fixture(scope="module")
def taught() -> Labeller:
    """Trained on digits, without noise."""
    train = digits().train
    labeller = Labeller(train.spec, 10)
    labeller.scale_by(train.pixels)
    objective = LabellerObjective(labeller)
    optimizer = torch.optim.SGD(labeller.parameters(), lr=10.0)
    for _ in range(40):
        copies = objective.draw(train.pixels, train.labels, rng())
        optimizer.zero_grad()
        torch.autograd.backward(objective.loss(labeller, *copies).mean())
        optimizer.step()
    return labeller


def test_a_labeller_knows_images_that_it_was_not_trained_on(taught):
    test = digits().test
    assert (taught.classify(test.pixels) == test.labels).float().mean() > 0.9


def test_images_serve_the_class_that_is_seen_in_them(taught):
    train = digits().train
    source = Confused(train.pixels, train.labels)
    pairs = zip(train.pixels, train.labels.tolist(), strict=True)
    truth = {pixels.numpy().tobytes(): label for pixels, label in pairs}
    labels = torch.arange(300) % 10

    def right(images: Tensor) -> float:
        found = [truth[image.numpy().tobytes()] for image in images]
        return (torch.tensor(found) == labels).float().mean().item()

    assert right(source.sample(labels, rng())) == pytest.approx(2 / 3, abs=0.1)
    assert right(LabelledSampler(source, taught).sample(labels, rng())) > 0.95


class SeesOnly(Labeller):
    """Takes every image for one class."""

    def classify(self, images: Tensor) -> Tensor:
        return torch.full((len(images),), 3)


def test_a_class_that_is_never_seen_keeps_the_images_that_were_drawn_for_it():
    train = digits().train
    source = Confused(train.pixels, train.labels)
    labels = torch.arange(40) % 10
    plain = source.sample(labels, rng())
    images = LabelledSampler(source, SeesOnly(train.spec, 10)).sample(labels, rng())
    others = labels != 3
    assert torch.equal(images[others], plain[others])


def test_coordinates_are_about_1_long_as_gradients_may_be():
    labeller = Labeller(GREY, 10)
    pixels = torch.randint(256, (64, 1, 8, 8), generator=rng(), dtype=torch.uint8)
    labeller.scale_by(torch.randint(256, (500, 1, 8, 8), generator=rng(1), dtype=torch.uint8))
    rows = labeller.rows(pixels)
    assert rows[:, :-1].norm(dim=1).max() <= 1 + 1e-5
    assert rows[:, :-1].norm(dim=1).median() > 0.8


def test_scales_do_not_depend_on_the_order_of_images_or_the_sign_of_an_axis():
    pixels = torch.randint(256, (500, 1, 8, 8), generator=rng(1), dtype=torch.uint8)
    one, other = Labeller(GREY, 2), Labeller(GREY, 2)
    one.scale_by(pixels)
    other.scale_by(pixels.flip(0))
    assert torch.allclose(one.axes, other.axes, atol=1e-3 * one.axes.abs().max().item())


def test_images_that_are_all_alike_give_finite_rows():
    labeller = Labeller(GREY, 2)
    labeller.scale_by(torch.zeros(500, 1, 8, 8, dtype=torch.uint8))
    assert labeller.rows(torch.full((2, 1, 8, 8), 255, dtype=torch.uint8)).isfinite().all()
