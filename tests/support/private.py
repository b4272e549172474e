"""Objectives with known gradients, reference engines, and training steps for privacy tests."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 (its customary name)
from torch import Tensor, nn

from dpbench.core.images import Images
from dpbench.core.progress import Silent
from dpbench.core.streams import Streams
from dpbench.parallel.ranks import ALONE, Ranks
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.clipping import Objective, Predict, as_rows, of_examples, trainable
from dpbench.privacy.clipping.selection import Execution, Executions
from dpbench.privacy.dpsgd import Learner
from dpbench.privacy.events import DPSGDEvent
from dpbench.privacy.ledger import PrivacyLedger
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo
from dpbench.training.averaging import ExponentialAverage
from dpbench.training.loop import Stage

Gradients = dict[str, Tensor]
Copies = tuple[Tensor, ...]
Engine = Callable[[nn.Module, Objective, Copies, float], Gradients]

KEY = bytes(range(32))
UNLIMITED = PrivacyBudget(math.inf)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flat(gradients: Gradients) -> Tensor:
    return torch.cat([part.flatten() for part in gradients.values()])


def some_images(count: int, side: int = 4, seed: int = 0) -> Images:
    """Random images; the label of each is its index, so that it can be told from the others."""
    pixels = torch.randint(0, 200, (count, 1, side, side), generator=rng(seed)).byte()
    return Images(pixels, torch.arange(count))


def handle(
    images: Images,
    ledger: PrivacyLedger | None = None,
    streams: Streams | None = None,
    nominal_size: int | None = None,
    executions: Executions | None = None,
) -> PrivateImages:
    info = PrivateSetInfo("images", images.spec, 10, nominal_size or len(images))
    ledger = ledger if ledger is not None else PrivacyLedger(UNLIMITED)
    return PrivateImages(images, info, ledger, streams or Streams(0, KEY), executions)


class Decided(Executions):
    """One execution for every training, neither timed nor compared with autograd."""

    def __init__(self, execution: Execution) -> None:
        super().__init__()
        self.execution = execution

    def of(self, *training: object) -> Execution:
        return self.execution


@dataclass
class Steps:
    """Runs private training and keeps what is released: noisy sums, as the optimizer sees them.

    The learning rate is 0, so that every step of every run is at the same weights. The engine is
    the one that trains networks.
    """

    model: nn.Module
    objective: Objective
    event: DPSGDEvent
    nominal_size: int = 1000
    after_step: Callable[[int], None] = lambda step: None
    ranks: Ranks = ALONE
    engine: str = "folded"

    def __call__(
        self,
        images: Images,
        ledger: PrivacyLedger | None = None,
        streams: Streams | None = None,
        folder: Path | None = None,
    ) -> list[Gradients]:
        released: list[Gradients] = []
        self.run(images, released, ledger, streams, folder)
        return released

    def run(
        self,
        images: Images,
        released: list[Gradients],
        ledger: PrivacyLedger | None = None,
        streams: Streams | None = None,
        folder: Path | None = None,
    ) -> None:
        """Like a call, but keeps in ``released`` what was released before an interruption."""
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.0)
        expected_batch = self.event.sample_rate * self.nominal_size

        def keep(*_: object) -> None:
            gradients = {name: p.grad for name, p in trainable(self.model).items()}
            released.append({n: g * expected_batch for n, g in gradients.items() if g is not None})
            self.after_step(len(released))

        optimizer.register_step_post_hook(keep)
        learner = Learner(self.model, optimizer, ExponentialAverage(self.model, 0.9))
        executions = Decided(Execution(self.engine, 128 // self.objective.multiplicity))
        private = handle(images, ledger, streams, self.nominal_size, executions)
        with tempfile.TemporaryDirectory() as scratch:
            file = (folder or Path(scratch)) / "private.stage"
            stage = Stage("training", file, Silent(), self.ranks)
            private.dp_sgd(learner, self.objective, self.event, stage)


class Coordinates(nn.Module):
    """One weight for each image, and ``spare`` that no image touches."""

    def __init__(self, images: int, spare: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(images + spare, 1))

    def forward(self, labels: Tensor) -> Tensor:
        return F.embedding(labels, self.weight).squeeze(1)


@dataclass(frozen=True)
class OwnCoordinate:
    """The gradient of image i is ``slope`` on coordinate i, so a release shows the batch."""

    slope: float = 1.0
    multiplicity: int = 1

    def draw(self, pixels: Tensor, labels: Tensor, rng: torch.Generator) -> Copies:
        return (labels[:, None],)

    def loss(self, predict: Predict, *copies: Tensor) -> Tensor:
        return self.slope * predict(copies[0].flatten())


class Layers(nn.Module):
    """Two large tensors and a small one between them; the output depends on all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(400, 300))
        self.bias = nn.Parameter(torch.zeros(5))
        self.last = nn.Parameter(torch.zeros(1000, 100))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.stack([p.sum() for p in self.parameters()]).sum()


@dataclass(frozen=True)
class Nothing:
    """A loss whose gradient is zero: what is released is the noise."""

    multiplicity: int = 1

    def draw(self, pixels: Tensor, labels: Tensor, rng: torch.Generator) -> Copies:
        return (torch.zeros(len(pixels), 1),)

    def loss(self, predict: Predict, *copies: Tensor) -> Tensor:
        return 0 * predict(copies[0].flatten())


POISON, HUGE = 255, 254


@dataclass(frozen=True)
class Regression:
    """Squared error against a target; K copies that differ in a known, not a random, way.

    A pixel of 255 turns an image into NaN and one of 254 into a huge number.
    """

    multiplicity: int = 1

    def draw(self, pixels: Tensor, labels: Tensor, rng: torch.Generator) -> Copies:
        x = pixels.float().div(100).sub(1)
        x = torch.where(pixels == POISON, math.nan, torch.where(pixels == HUGE, 1e30, x))
        shifts = torch.linspace(0, 2, self.multiplicity)[None, :, None, None, None]
        copies = x[:, None] * (1 - shifts)
        target = copies[:, :, 0, 0, 0].nan_to_num(0).clamp(-3, 3)
        return copies, 3 * torch.sin(5 * target)

    def loss(self, predict: Predict, *copies: Tensor) -> Tensor:
        x, target = copies
        error = of_examples(predict(as_rows(x)), len(x)).view_as(target) - target
        return error.square().mean(dim=1)


@dataclass(frozen=True)
class NoisyRegression(Regression):
    """``Regression`` on noisy copies."""

    def draw(self, pixels: Tensor, labels: Tensor, rng: torch.Generator) -> Copies:
        copies, target = super().draw(pixels, labels, rng)
        target = target + torch.rand(target.shape, generator=rng)
        return copies + torch.randn(copies.shape, generator=rng), target


def with_pixel(images: Images, value: int) -> Images:
    """One more image, with one such pixel."""
    extra = some_images(1, images.spec.height, seed=9)
    extra.pixels[0, 0, 1, 2] = value
    return Images(
        torch.cat([images.pixels, extra.pixels]), torch.cat([images.labels, extra.labels])
    )


def perceptron(inputs: int = 16) -> nn.Module:
    return _drawn(nn.Sequential(nn.Flatten(), nn.Linear(inputs, 8), nn.SiLU(), nn.Linear(8, 1)))


def convolutions() -> nn.Module:
    """A small network with GroupNorm and a weight that is used twice."""
    first, shared = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
    norm, readout = nn.GroupNorm(2, 4), nn.Linear(64, 1)
    return _drawn(
        nn.Sequential(first, norm, nn.SiLU(), shared, nn.SiLU(), shared, nn.Flatten(), readout)
    )


def _drawn(model: nn.Module) -> nn.Module:
    return randomised(model, 0.5)


def randomised(model: nn.Module, scale: float, seed: int = 1) -> nn.Module:
    """All weights drawn anew, so that no gradient vanishes by initialisation."""
    generator = rng(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return model


def copy_gradients(model: nn.Module, objective: Objective, copies: Copies) -> Tensor:
    """The gradient of the loss of each copy by itself, by a loop: ``(B, K, D)``."""
    weights = list(trainable(model).values())
    count, multiplicity = copies[0].shape[:2]
    rows = []
    for i, k in itertools.product(range(count), range(multiplicity)):
        one = objective.loss(model, *(part[i : i + 1, k : k + 1] for part in copies))
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(one.sum(), weights)]))
    return torch.stack(rows).view(count, multiplicity, -1)


def shortened(rows: Tensor, clipping_norm: float) -> Tensor:
    """Each of the last dimension's vectors clipped; those that are not finite are zero."""
    norms = rows.norm(dim=-1, keepdim=True)
    rows = rows * (clipping_norm / norms).clamp(max=1)
    return torch.where(norms.isfinite(), rows, 0)


def shaped(model: nn.Module, vector: Tensor) -> Gradients:
    """A vector of all coordinates, as one tensor for each trainable parameter."""
    weights = trainable(model)
    parts = torch.split(vector, [p.numel() for p in weights.values()])
    return {
        name: part.view(p.shape) for (name, p), part in zip(weights.items(), parts, strict=True)
    }
