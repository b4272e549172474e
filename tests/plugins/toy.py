"""A third-party method and evaluator that take a moment to run, with hooks for tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from dpbench.api.evaluator import EvaluationContext, Need
from dpbench.api.method import Plan, PlannedStage, RunContext
from dpbench.core.metrics import Measurement, MetricSpec
from dpbench.core.pixels import from_pixels, to_pixels
from dpbench.core.state import State
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.calibration import calibrate
from dpbench.privacy.dpsgd import Learner
from dpbench.privacy.events import DPSGDEvent
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo
from dpbench.training.averaging import ExponentialAverage

# what a test wants to happen at "step" (with its number from 1), "sample" and "evaluate"
HOOKS: dict[str, Callable[[int], None]] = {}
CALLS: dict[str, int] = {}


def reach(point: str) -> None:
    CALLS[point] = CALLS.get(point, 0) + 1
    HOOKS.get(point, lambda count: None)(CALLS[point])


class MeanImage(nn.Module):
    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(shape))

    def forward(self, images: Tensor) -> Tensor:
        return self.mean.expand_as(images)


@dataclass(frozen=True)
class SquaredError:
    multiplicity: int = 1

    def draw(self, pixels: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, ...]:
        if labels.any():  # engines are compared and timed on images of class 0, before the steps
            reach("step")
        noise = torch.randn(pixels.shape, generator=rng)
        return ((from_pixels(pixels) + noise).unsqueeze(1),)

    def loss(self, predict: Callable[..., Tensor], images: Tensor) -> Tensor:
        rows = images.flatten(0, 1)
        return (predict(rows) - rows).square().flatten(1).mean(1).view(images.shape[:2]).mean(1)


@dataclass(frozen=True)
class ToySampler:
    mean: Tensor

    def sample(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        reach("sample")
        return to_pixels(self.mean + torch.randn(len(labels), *self.mean.shape, generator=rng) / 4)

    def state(self) -> State:
        return {"mean": self.mean}


@dataclass(frozen=True)
class Toy:
    """One noisy mean image, by DP-SGD in steps of one physical batch."""

    summary: ClassVar[str] = "one noisy mean image"
    private: ClassVar[bool] = True
    presets: ClassVar[tuple[()]] = ()

    steps: int = 4
    batch_size: int = 16
    learning_rate: float = 0.1

    def _event(self, info: PrivateSetInfo, budget: PrivacyBudget) -> DPSGDEvent:
        rate = self.batch_size / info.nominal_size
        noise_multiplier = calibrate(budget, rate, self.steps)
        return DPSGDEvent(rate, noise_multiplier, 1.0, self.steps, "mean image")

    def plan(self, info: PrivateSetInfo, budget: PrivacyBudget) -> Plan:
        stage = PlannedStage("training", self.steps, self.steps * self.batch_size, private=True)
        return Plan((stage,), (self._event(info, budget),), 256)

    def fit(self, private: PrivateImages, run: RunContext) -> ToySampler:
        model = MeanImage(private.info.spec.shape)
        optimizer = torch.optim.Adam(model.parameters(), lr=self.learning_rate)
        learner = Learner(model, optimizer, ExponentialAverage(model, 0.9))
        stage = run.stage("training", "training")
        event = self._event(private.info, private.budget)
        private.dp_sgd(learner, SquaredError(), event, stage)
        return ToySampler(model.mean.detach().clone())

    def restore(self, state: State, info: PrivateSetInfo, device: torch.device) -> ToySampler:
        return ToySampler(state["mean"])


@dataclass(frozen=True)
class ToyEvaluator:
    summary: ClassVar[str] = "mean intensity"
    metrics: ClassVar[tuple[MetricSpec, ...]] = (
        MetricSpec("toy_mean", "", False, "mean pixel"),
        MetricSpec("toy_missing", "%", True, "a number that cannot be had"),
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SAMPLES, Need.REAL_TEST})

    def evaluate(self, case: EvaluationContext) -> list[Measurement]:
        reach("evaluate")
        test, n = case.open_real(Need.REAL_TEST), len(case.synthetic)
        mean = case.synthetic.pixels.float().mean().item()
        case.keep({"test_labels": test.labels.numpy()})
        return [
            Measurement("toy_mean", mean, "", False, n, "test", n_real=len(test)),
            Measurement("toy_missing", None, "%", True, n, "test", reason="it is [missing]"),
        ]
