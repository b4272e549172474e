"""Small honest methods, whose parts are overridden by those that cheat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from dpbench.api.method import Plan, PlannedStage, Preset, RunContext
from dpbench.core.images import Images
from dpbench.core.state import State
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.calibration import calibrated
from dpbench.privacy.clipping import Predict, as_rows, of_examples
from dpbench.privacy.dpsgd import Learner
from dpbench.privacy.events import DPSGDEvent, GaussianEvent, SelectionEvent
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo
from dpbench.training.averaging import ExponentialAverage
from tests.support.private import perceptron

SUM = GaussianEvent(1.0, 4.0, "sum")
TRAINING = DPSGDEvent(0.02, 1.0, 0.5, 3, "weights")
CHOICE = SelectionEvent(20.0, "choice")
KEPT: dict[str, Any] = {}  # what outlives a call


def raw(private: PrivateImages) -> Images:
    images: Images = private._PrivateImages__images  # type: ignore[attr-defined]
    return images


@dataclass(frozen=True)
class Shows:
    """A sampler that draws the first image that it knows, whatever the label."""

    learned: Tensor

    def sample(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        return self.learned[:1].clamp(0, 255).byte().expand(len(labels), -1, -1, -1).clone()

    def state(self) -> State:
        return {"learned": self.learned}


@dataclass(frozen=True)
class OneSum:
    """Honest: one noisy sum of all images."""

    summary: ClassVar[str] = "for tests"
    private: ClassVar[bool] = True
    presets: ClassVar[tuple[Preset, ...]] = ()

    def plan(self, info: PrivateSetInfo, budget: PrivacyBudget) -> Plan:
        return Plan(events=(calibrated(SUM, budget),))

    def rows(self, images: Images) -> Tensor:
        return images.pixels.flatten(1).float() / 255

    def learn(self, private: PrivateImages, rows: Callable[[Images], Tensor]) -> Tensor:
        total = private.gaussian_sum(rows, calibrated(SUM, private.budget))
        return total.view(1, *private.info.spec.shape).float()

    def fit(self, private: PrivateImages, run: RunContext) -> Shows:
        return Shows(self.learn(private, self.rows))

    def restore(self, state: State, info: PrivateSetInfo, device: torch.device) -> Shows:
        return Shows(state["learned"])


@dataclass
class PredictsAPixel:
    """Predicts the first pixel of an image from a noisy copy."""

    multiplicity: int = 1

    def draw(self, pixels: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, ...]:
        x = pixels.float()[:, None] / 100 - 1
        return x + torch.empty(x.shape).normal_(generator=rng), x[:, :, 0, 0, 0]

    def loss(self, predict: Predict, *copies: Tensor) -> Tensor:
        x, target = copies
        error = of_examples(predict(as_rows(x)), len(x)).view_as(target) - target
        return error.square().mean(dim=1)


@dataclass(frozen=True)
class Trains(OneSum):
    """Honest: a few private steps."""

    def event(self, budget: PrivacyBudget) -> DPSGDEvent:
        return calibrated(TRAINING, budget)

    def plan(self, info: PrivateSetInfo, budget: PrivacyBudget) -> Plan:
        evaluations = round(TRAINING.steps * TRAINING.sample_rate * info.nominal_size)
        stage = PlannedStage("training", TRAINING.steps, evaluations, private=True)
        return Plan((stage,), (self.event(budget),))

    def objective(self) -> PredictsAPixel:
        return PredictsAPixel()

    def fit(self, private: PrivateImages, run: RunContext) -> Shows:
        model = perceptron(int(np.prod(private.info.spec.shape)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        learner = Learner(model, optimizer, ExponentialAverage(model, 0.9))
        stage = run.stage("training", "training")
        private.dp_sgd(learner, self.objective(), self.event(private.budget), stage)
        return Shows(100 * next(model.parameters()).detach()[:1].view(1, *private.info.spec.shape))


class Chooses(OneSum):
    """Honest: the brighter or the darker half, by the exponential mechanism."""

    def plan(self, info: PrivateSetInfo, budget: PrivacyBudget) -> Plan:
        return Plan(events=(CHOICE, calibrated(SUM, budget, (CHOICE,))))

    def score(self, factor: float, images: Images) -> Tensor:
        return factor * images.pixels.flatten(1).float().mean(1) / 255

    def fit(self, private: PrivateImages, run: RunContext) -> Shows:
        factor = private.select((0.5, 1.0), self.score, CHOICE)
        event = calibrated(SUM, private.budget, (CHOICE,))
        total = private.gaussian_sum(lambda images: factor * self.rows(images), event)
        return Shows(total.view(1, *private.info.spec.shape).float())
