"""Methods by which private images leave around the mechanisms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from dpbench.api.method import Preset, RunContext
from dpbench.core.images import Images
from dpbench.core.state import State
from dpbench.privacy.clipping import Predict
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo
from tests.support.cheats.honest import (
    KEPT,
    Chooses,
    OneSum,
    PredictsAPixel,
    Shows,
    Trains,
    raw,
)

# Images that leave.


class ReturnsImages(OneSum):
    """returns private images as its samples"""

    def fit(self, private: PrivateImages, run: RunContext) -> Shows:
        self.learn(private, self.rows)
        return Shows(raw(private).pixels[:20].clone())


class KeepsImagesOfFeatures(OneSum):
    """a `features` closure copies images out"""

    def fit(self, private: PrivateImages, run: RunContext) -> Shows:
        seen = []

        def rows(images: Images) -> Tensor:
            seen.append(images.pixels[:3].clone())
            return self.rows(images)

        learned = self.learn(private, rows)
        return Shows(torch.cat([*seen, learned]))


class KeepsImagesOfDraws(Trains):
    """`objective.draw` copies images out"""

    def fit(self, private: PrivateImages, run: RunContext) -> Shows:
        learned = super().fit(private, run).learned
        return Shows(torch.cat([KEPT.pop("drawn", learned)[:1].float(), learned]))

    def objective(self) -> PredictsAPixel:
        class Keeping(PredictsAPixel):
            def draw(self, pixels: Tensor, labels: Tensor, rng: torch.Generator) -> Any:
                KEPT["drawn"] = pixels[:1].clone()
                return super().draw(pixels, labels, rng)

        return Keeping()


class KeepsImagesOfLosses(KeepsImagesOfDraws):
    """`objective.loss` copies images out"""

    def objective(self) -> PredictsAPixel:
        class Keeping(PredictsAPixel):
            def loss(self, predict: Predict, *copies: Tensor) -> Tensor:
                KEPT["drawn"] = 100 * copies[0][:1, 0].detach().clone()
                return super().loss(predict, *copies)

        return Keeping()


class SamplesAGlobal(OneSum):
    """its sampler finds the images in a global of the module"""

    def fit(self, private: PrivateImages, run: RunContext) -> Shows:
        KEPT["images"] = raw(private).pixels[:1]
        return FromTheGlobal(self.learn(private, self.rows))

    def restore(self, state: State, info: PrivateSetInfo, device: torch.device) -> Shows:
        return FromTheGlobal(state["learned"])


class FromTheGlobal(Shows):
    def sample(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        return Shows(torch.cat([KEPT["images"], self.learned])).sample(labels, rng)


class StartsFromTheFirstBatch(Trains):
    """initialises by statistics of the first batch"""

    def fit(self, private: PrivateImages, run: RunContext) -> Shows:
        KEPT.pop("mean", None)
        return Shows(super().fit(private, run).learned + KEPT.get("mean", 0.0))

    def objective(self) -> PredictsAPixel:
        class First(PredictsAPixel):
            def draw(self, pixels: Tensor, labels: Tensor, rng: torch.Generator) -> Any:
                if labels.any():  # no images that engines are compared on
                    KEPT.setdefault("mean", pixels.float().mean())
                return super().draw(pixels, labels, rng)

        return First()


class RemembersTheFirstFit(OneSum):
    """keeps the mean image of the first fit in memory, for all later ones"""

    def fit(self, private: PrivateImages, run: RunContext) -> Shows:
        learned = self.learn(private, self.rows)
        mean = KEPT.setdefault("memo", raw(private).pixels[:1000].float().sum(0, keepdim=True))
        return Shows(0 * learned + mean)


class KeepsImagesOfScores(Chooses):
    """the score callback of `select` copies images out"""

    def fit(self, private: PrivateImages, run: RunContext) -> Shows:
        learned = super().fit(private, run).learned
        return Shows(torch.cat([KEPT.pop("scored").float(), learned]))

    def score(self, factor: float, images: Images) -> Tensor:
        KEPT["scored"] = images.pixels[:1].clone()
        return super().score(factor, images)


class ScoresByTheCount(Chooses):
    """scores images by how many there are"""

    def score(self, factor: float, images: Images) -> Tensor:
        return super().score(factor, images) * 0 + factor / (1 + len(images))


@dataclass(frozen=True)
class LeaksUnderAPreset(OneSum):
    """leaks the mean image, under the presets of larger profiles alone"""

    presets: ClassVar[tuple[Preset, ...]] = (
        Preset("smoke", "tests", {"leaks": False}),
        Preset("laptop", "tests", {"leaks": True}),
    )
    leaks: bool = False

    def fit(self, private: PrivateImages, run: RunContext) -> Shows:
        learned = self.learn(private, self.rows)
        return Shows(learned + raw(private).pixels.float().sum(0) if self.leaks else learned)
