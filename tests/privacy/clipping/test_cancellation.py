"""Gradients that cancel almost: flat images in front of a normalisation without a scale."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from dpbench.privacy.clipping import Predict, engine, example_gradients
from tests.support.checks import Detected, expect
from tests.support.private import Copies, flat, randomised, rng

EXAMPLES, CHANNELS, SIDE, C = 8, 40, 5, 1.0


class MinusMean(nn.Module):
    """Subtracts from each row of positions ``(B, P, D)`` their mean."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(dim=1, keepdim=True)


class Positions(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).mT


class Words(nn.Module):
    """The same word at every position."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2)[:, 0].gt(100).long()


def convolution() -> nn.Module:
    layer = nn.Conv2d(CHANNELS, CHANNELS, 3, bias=False)
    return nn.Sequential(layer, nn.GroupNorm(CHANNELS, CHANNELS, affine=False))


def linear() -> nn.Module:
    layer = nn.Linear(CHANNELS, CHANNELS, bias=False)
    return nn.Sequential(Positions(), layer, MinusMean())


def embedding() -> nn.Module:
    return nn.Sequential(Words(), nn.Embedding(2, CHANNELS), MinusMean())


@dataclass(frozen=True)
class Steep:
    """A large random multiple of the output; ``seed`` chooses which."""

    seed: int = 3
    multiplicity: int = 1

    def draw(self, pixels: Tensor, labels: Tensor, rng: torch.Generator) -> Copies:
        raise NotImplementedError

    def loss(self, predict: Predict, *copies: Tensor) -> Tensor:
        output = predict(copies[0][:, 0]).flatten(1)
        slopes = torch.randn(output.shape[1], generator=rng(self.seed))
        return 1e8 * (output * slopes.to(output.dtype)).sum(dim=1)


STEEP = Steep()


def images(deviation: float) -> Tensor:
    """``(B, 1, C, H, W)``: a constant for each channel, and a little noise."""
    level = torch.randn(EXAMPLES, 1, CHANNELS, 1, 1, generator=rng(1))
    noise = torch.randn(EXAMPLES, 1, CHANNELS, SIDE, SIDE, generator=rng(2))
    return level + deviation * noise


def check_contributions(model: nn.Module, deviation: float, objective: Steep = STEEP) -> None:
    """No example adds more than C to a sum, and each adds what double precision says."""
    randomised(model, 1.0)
    precise = copy.deepcopy(model).double()
    for i in range(EXAMPLES):
        one = images(deviation)[i : i + 1]
        got = flat(engine("folded")(model, objective, (one,), C))
        expect(float(got.norm()) <= C * (1 + 1e-3), "an example adds at most C")
        loss = objective.loss(precise, one.double()).sum()
        want = torch.cat(
            [g.flatten() for g in torch.autograd.grad(loss, list(precise.parameters()))]
        )
        if deviation >= 1e-2:  # else the backward pass itself loses its digits
            want = want * min(1.0, C / float(want.norm()))
            expect(float((got - want).norm()) <= 1e-2 * C, "the sum is that of double precision")


@pytest.mark.parametrize("deviation", [0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1.0])
@pytest.mark.parametrize("build", [convolution, linear])
def test_an_example_whose_gradient_cancels_adds_no_more_than_the_clipping_norm(
    build: Callable[[], nn.Module], deviation: float
) -> None:
    check_contributions(build(), deviation)


def check_words(model: nn.Module) -> None:
    """Rounding errs to either side: of six objectives some leave less than nothing of the norm."""
    for seed in range(6):
        check_contributions(model, 0.0, Steep(seed))


def test_nor_does_one_whose_words_cancel() -> None:
    check_words(embedding())


@pytest.mark.parametrize("build", [convolution, linear])
def test_it_catches_norms_from_inner_products_alone(
    build: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example_gradients, "CANCELLED", 0.0)
    with pytest.raises(Detected):
        for deviation in (0.0, 1e-5, 1e-4, 1e-3):
            check_contributions(build(), deviation)


def test_it_catches_words_whose_norm_is_from_inner_products_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(example_gradients, "CANCELLED", 0.0)
    with pytest.raises(Detected):
        check_words(embedding())


def test_a_batch_with_examples_that_cancel_is_the_sum_of_its_examples() -> None:
    model = randomised(convolution(), 1.0)
    mixed = torch.cat([images(5e-3)[:2], images(1.0)[2:]])
    whole = flat(engine("folded")(model, Steep(), (mixed,), C))
    parts = [flat(engine("folded")(model, Steep(), (each,), C)) for each in mixed.split(1)]
    assert float((whole - torch.stack(parts).sum(0)).norm()) <= 5e-2 * C
