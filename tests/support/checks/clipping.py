"""Checks of engines and of sums over a logical batch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (its customary name)
from torch import Tensor, nn

from dpbench.core.images import Images, ImageSpec
from dpbench.generators.diffusion.denoiser import Centres, Denoiser
from dpbench.generators.diffusion.loss import DenoisingObjective
from dpbench.generators.diffusion.networks.ddpmpp import DDPMPP
from dpbench.generators.diffusion.networks.unet import UNetSettings
from dpbench.generators.diffusion.preconditioning import EDM
from dpbench.privacy import dpsgd, draws
from dpbench.privacy.clipping import Objective, engine
from tests.support.checks import expect
from tests.support.private import (
    Copies,
    Engine,
    NoisyRegression,
    Regression,
    convolutions,
    copy_gradients,
    flat,
    perceptron,
    randomised,
    rng,
    shortened,
    some_images,
)

EXAMPLES = 5


@dataclass(frozen=True)
class Case:
    """A model, its objective and the copies of a few examples."""

    model: nn.Module
    objective: Objective
    copies: Copies

    @cached_property
    def gradients(self) -> Tensor:
        """By a loop of autograd, the mean over the copies of each example: ``(B, D)``."""
        return copy_gradients(self.model, self.objective, self.copies).mean(dim=1)

    @property
    def median_norm(self) -> float:
        """A clipping norm that shortens some of the gradients and leaves others alone."""
        return float(self.gradients.norm(dim=1).nanmedian())


class ManyLayers(nn.Module):
    """Every kind of layer that the folded engine knows, each in an unusual form."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(1, 4, 3, padding=1)
        self.two = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2, bias=False)
        self.ghost = nn.Conv2d(8, 40, (1, 2), padding=(0, 1))
        self.narrow = nn.Conv2d(40, 6, 1)
        self.norm = nn.GroupNorm(3, 6)
        self.positions = nn.Linear(6, 5)
        self.layer_norm = nn.LayerNorm(5)
        self.lookup = nn.Embedding(4, 5, padding_idx=2)
        self.last = nn.Linear(5, 1, bias=False)
        randomised(self, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.two(torch.tanh(self.one(x))))
        h = F.silu(self.norm(self.narrow(torch.relu_(self.ghost(h)))))
        h = self.layer_norm(self.positions(h.flatten(2).mT))
        words = (x.flatten(1)[:, :6] * 7).long().remainder(4)
        return self.last(h * self.lookup(words)).mean(dim=(1, 2))


def case(network: str, multiplicity: int, images: Images | None = None) -> Case:
    images = images or some_images(EXAMPLES)
    if network in ("unet", "centred unet"):
        settings, spec = UNetSettings(8, (1,), 1, (), 2), ImageSpec(1, 4, 4)
        unet = randomised(DDPMPP(spec, EXAMPLES, settings), 0.2)
        centres = None
        if network == "centred unet":
            centres = randomised(Centres(spec, EXAMPLES, widths=True, exponent=2.0), 0.02)
        model: nn.Module = Denoiser(unet, EDM(), centres=centres)
        objective: Objective = DenoisingObjective(EDM(), multiplicity, EXAMPLES, 0.1)
    elif network == "many layers":
        model, objective = ManyLayers(), Regression(multiplicity)
    else:
        model = {"perceptron": perceptron, "convolutions": convolutions}[network]()
        objective = Regression(multiplicity)
    return Case(model, objective, objective.draw(images.pixels, images.labels, rng()))


def expect_equal(got: Tensor, want: Tensor, claim: str) -> None:
    """Equal but for rounding: a distance of 1e-5 of the norm."""
    expect(float((got - want).norm()) <= 1e-5 * float(want.norm()), claim)


def check_against_autograd(engine: Engine, case: Case) -> None:
    """An engine gives the sum of clipped gradients that a loop of autograd gives."""
    for clipping_norm in (case.median_norm, 0.03 * case.median_norm, 1e3 * case.median_norm):
        got = flat(engine(case.model, case.objective, case.copies, clipping_norm))
        want = shortened(case.gradients, clipping_norm).sum(dim=0)
        expect_equal(got, want, f"at C = {clipping_norm:.3g} the sum is autograd's")


def check_physical_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum over a logical batch does not depend on the size of physical batches."""
    monkeypatch.setattr(draws, "COPIES_DRAWN_TOGETHER", 24)
    images, batch = some_images(40), torch.arange(1, 38)
    sums = []
    for size in (1, 5, 32, 500):
        total = dpsgd.gradient_sum(
            perceptron(),
            NoisyRegression(2),
            images,
            batch,
            clipping_norm=0.5,
            draws=rng,
            clipped=engine("folded"),
            size=size,
        )
        sums.append(flat(total))
    for other in sums[1:]:
        expect_equal(other, sums[0], "the physical batch size does not matter")
