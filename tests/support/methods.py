"""A small honest method, and ones that get at private images outside of the mechanisms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dpbench.api.method import Plan, PlannedStage, RunContext
from dpbench.core.images import Images
from dpbench.core.state import State
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.clipping import Objective, Predict, as_rows, of_examples
from dpbench.privacy.dpsgd import Learner
from dpbench.privacy.events import DPSGDEvent, GaussianEvent
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo
from dpbench.training.averaging import ExponentialAverage
from tests.support.private import perceptron

SUM = GaussianEvent(20.0, 1.5, "sum")
TRAINING = DPSGDEvent(0.3, 20.0, 0.5, 3, "weights")


@dataclass(frozen=True)
class Fixed:
    """A sampler that shows the first of its numbers as a grey level, whatever the label."""

    numbers: Tensor

    def sample(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        return self.numbers.flatten()[:1].clamp(0, 255).byte().expand(len(labels), 1, 4, 4).clone()

    def state(self) -> State:
        return {"numbers": self.numbers}


@dataclass
class NoisyRegression:
    """Predicts the first pixel of an image from noisy copies."""

    multiplicity: int = 2

    def prepare(self, pixels: Tensor) -> Tensor:
        return pixels.float() / 100 - 1

    def draw(self, pixels: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, ...]:
        level = torch.rand((len(pixels), self.multiplicity), generator=rng)
        x = self.prepare(pixels)[:, None].expand(-1, self.multiplicity, -1, -1, -1)
        noise = torch.empty(x.shape).normal_(generator=rng)
        return x + level[:, :, None, None, None] * noise, x[:, :, 0, 0, 0]

    def loss(self, predict: Predict, *copies: Tensor) -> Tensor:
        x, target = copies
        error = of_examples(predict(as_rows(x)), len(x)).view_as(target) - target
        return error.square().mean(dim=1)


@dataclass(frozen=True)
class Honest:
    """One sum, then private training; its parts are overridden by those that cheat."""

    summary: ClassVar[str] = "for tests"
    private: ClassVar[bool] = True
    presets: ClassVar[tuple[()]] = ()

    def plan(self, info: PrivateSetInfo, budget: PrivacyBudget) -> Plan:
        evaluations = TRAINING.steps * round(TRAINING.sample_rate * info.nominal_size) * 2
        stage = PlannedStage("training", TRAINING.steps, evaluations, private=True)
        return Plan((stage,), (SUM, TRAINING))

    def features(self, images: Images) -> Tensor:
        return images.pixels.flatten(1).float() / 255

    def objective(self) -> Objective:
        return NoisyRegression()

    def fit(self, private: PrivateImages, run: RunContext) -> Fixed:
        return Fixed(self.learn(private, run, self.features, self.objective()))

    def restore(self, state: State, info: PrivateSetInfo, device: torch.device) -> Fixed:
        return Fixed(**state)

    def learn(
        self,
        private: PrivateImages,
        run: RunContext,
        features: Callable[[Images], Tensor],
        objective: Objective,
        event: GaussianEvent = SUM,
        start: float = 0.1,
    ) -> Tensor:
        """The released sum and the trained weights, in one row."""
        total = private.gaussian_sum(features, event)
        model = perceptron()
        with torch.no_grad():
            next(model.parameters()).mul_(start)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        learner = Learner(model, optimizer, ExponentialAverage(model, 0.9))
        private.dp_sgd(learner, objective, TRAINING, run.stage("training", "training"))
        learner.average.copy_to(model)
        return torch.cat([total, *(p.detach().flatten() for p in model.parameters())])


# Through a mechanism's callback.


class LeaksWhatItsFeaturesSaw(Honest):
    def fit(self, private: PrivateImages, run: RunContext) -> Fixed:
        seen = []

        def features(images: Images) -> Tensor:
            seen.append(images.pixels.float().mean())
            return self.features(images)

        return Fixed(self.learn(private, run, features, self.objective()) * 0 + torch.stack(seen))


class DividesByTheRealisedCount(Honest):
    def fit(self, private: PrivateImages, run: RunContext) -> Fixed:
        count = 0

        def features(images: Images) -> Tensor:
            nonlocal count
            count += len(images)
            return self.features(images)

        total = self.learn(private, run, features, self.objective())
        return Fixed(total / count)


class NormalisesFeatures(Honest):
    def features(self, images: Images) -> Tensor:
        rows = super().features(images)
        return rows - rows.mean(dim=0)


class NormalisesBatches(Honest):
    def objective(self) -> Objective:
        class Normalising(NoisyRegression):
            def prepare(self, pixels: Tensor) -> Tensor:
                x = super().prepare(pixels)
                return (x - x.mean()) / x.std()

        return Normalising()


class WeightsByTheRealisedBatch(Honest):
    def objective(self) -> Objective:
        class Weighting(NoisyRegression):
            def prepare(self, pixels: Tensor) -> Tensor:
                # the rows that fill up a chunk of draws are alike
                return 10 * super().prepare(pixels) / len(pixels.unique(dim=0))

        return Weighting()


class KeepsAStateBetweenSteps(Honest):
    def objective(self) -> Objective:
        class Remembering(NoisyRegression):
            brightest = 0.0

            def prepare(self, pixels: Tensor) -> Tensor:
                before = self.brightest
                self.brightest = 0.5 * before + 0.5 * float(pixels.float().mean())
                return super().prepare(pixels) - before / 1000

        return Remembering()


# Around the handle.


def stolen(private: PrivateImages) -> Images:
    images: Images = private._PrivateImages__images  # type: ignore[attr-defined]
    return images


class TakesLabelsFromTheImages(Honest):
    def fit(self, private: PrivateImages, run: RunContext) -> Fixed:
        self.learn(private, run, self.features, self.objective())
        return Fixed(torch.bincount(stolen(private).labels, minlength=3))


class ClipsAtAQuantileOfTheImages(Honest):
    def fit(self, private: PrivateImages, run: RunContext) -> Fixed:
        norm = float(self.features(stolen(private)).norm(dim=1).mean())
        event = GaussianEvent(SUM.noise_multiplier, norm, SUM.purpose)
        return Fixed(self.learn(private, run, self.features, self.objective(), event))


class StartsFromTheMeanImage(Honest):
    def fit(self, private: PrivateImages, run: RunContext) -> Fixed:
        start = float(self.features(stolen(private)).mean())
        return Fixed(self.learn(private, run, self.features, self.objective(), start=start))


class PretrainsOnPrivateImages(Honest):
    """Caches weights that saw private images as public ones, where later runs find them."""

    def fit(self, private: PrivateImages, run: RunContext) -> Fixed:
        learned = self.learn(private, run, self.features, self.objective())
        pretraining, model = run.pretraining({"images": "public"}, "training"), perceptron()
        if not pretraining.load(model):
            with torch.no_grad():
                next(model.parameters()).fill_(float(stolen(private).pixels.float().mean()))
            pretraining.save(model)
        return Fixed(torch.cat([learned, next(model.parameters()).detach().flatten()]))


class StopsWhenItHasSeenEnough(Honest):
    """Ends in an error where there is a white image, which is a release too."""

    def features(self, images: Images) -> Tensor:
        if bool((images.pixels == 255).flatten(1).all(dim=1).any()):
            raise ValueError("an image is all white")
        return super().features(images)


CHEATS: dict[type[Honest], str] = {
    LeaksWhatItsFeaturesSaw: "checkpoint",
    DividesByTheRealisedCount: "checkpoint",
    NormalisesFeatures: "copies and features of the other images",
    NormalisesBatches: "copies and features of the other images",
    WeightsByTheRealisedBatch: "copies and features of the other images",
    KeepsAStateBetweenSteps: "copies and features of the other images",
    TakesLabelsFromTheImages: "checkpoint",
    ClipsAtAQuantileOfTheImages: "events",
    StartsFromTheMeanImage: "weights before releases",
    PretrainsOnPrivateImages: "checkpoint",
    StopsWhenItHasSeenEnough: "fit: ValueError: an image is all white",
}
