"""Methods that do other things than they say, that cannot be relied on, or that nothing sees."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpbench.api.method import Plan, PlannedStage, RunContext
from dpbench.core.images import Images
from dpbench.core.progress import Silent
from dpbench.data.load import load
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.calibration import calibrated
from dpbench.privacy.clipping import Predict
from dpbench.privacy.events import GaussianEvent
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo
from tests.support.cheats.honest import (
    SUM,
    OneSum,
    PredictsAPixel,
    Shows,
    Trains,
    raw,
)

# What is said and what is done.


class MixesExamples(Trains):
    """centres images by their batch, where it is larger than those that engines are tried on"""

    def objective(self) -> PredictsAPixel:
        class Mixing(PredictsAPixel):
            def loss(self, predict: Predict, *copies: Tensor) -> Tensor:
                x, target = copies
                return super().loss(predict, x - x.mean(0) if len(x) > 3 else x, target)

        return Mixing()


class PlansOtherEvents(OneSum):
    """plans ten times the noise that it runs with"""

    def plan(self, info: PrivateSetInfo, budget: PrivacyBudget) -> Plan:
        event = calibrated(SUM, budget)
        return Plan(events=(replace(event, noise_multiplier=10 * event.noise_multiplier),))


class PlansLessCompute(Trains):
    """plans 4 gradient evaluations and makes 86"""

    def plan(self, info: PrivateSetInfo, budget: PrivacyBudget) -> Plan:
        return Plan((PlannedStage("training", 3, 4, True),), (self.event(budget),))


@dataclass(frozen=True)
class Cheap(GaussianEvent):
    def loss(self, adjacency: Any, interval: float) -> Any:
        return replace(SUM, noise_multiplier=1e4).loss(adjacency, interval)


class SpendsAnEventOfItsOwn(OneSum):
    """spends an event of its own class, which states a smaller privacy loss"""

    def plan(self, info: PrivateSetInfo, budget: PrivacyBudget) -> Plan:
        return Plan(events=(Cheap(0.5, 4.0, "sum"),))

    def learn(self, private: PrivateImages, rows: Callable[[Images], Tensor]) -> Tensor:
        (event,) = self.plan(private.info, private.budget).events
        assert isinstance(event, GaussianEvent)
        return private.gaussian_sum(rows, event).view(1, *private.info.spec.shape).float()


class ChangesItsEvent(OneSum):
    """sets the noise of its event to zero when it has been spent"""

    def learn(self, private: PrivateImages, rows: Callable[[Images], Tensor]) -> Tensor:
        event = calibrated(SUM, private.budget)

        def later(images: Images) -> Tensor:
            object.__setattr__(event, "noise_multiplier", 0.0)
            return rows(images)

        return private.gaussian_sum(later, event).view(1, *private.info.spec.shape).float()


class HalvesTheNoise(OneSum):
    """accounts for twice the noise that it runs with"""

    def fit(self, private: PrivateImages, run: RunContext) -> Shows:
        streams = private._PrivateImages__streams  # type: ignore[attr-defined]
        honest = streams.secret

        def secret(name: str, *path: object) -> Any:
            rng = honest(name, *path)
            return Half(rng.bit_generator) if name == "dp-noise" else rng

        streams.secret = secret
        return super().fit(private, run)


class Half(np.random.Generator):
    def standard_normal(self, *arguments: Any, **named: Any) -> Any:
        return super().standard_normal(*arguments, **named) / 2


# What cannot be relied on.


class ExitsTheInterpreter(OneSum):
    """calls `sys.exit(0)` in `fit`"""

    def fit(self, private: PrivateImages, run: RunContext) -> Shows:
        sys.exit(0)


class EndsTheProcess(OneSum):
    """calls `os._exit(0)` in `fit`"""

    def fit(self, private: PrivateImages, run: RunContext) -> Shows:
        os._exit(0)


class DependsOnTheTime(OneSum):
    """draws by the clock"""

    def fit(self, private: PrivateImages, run: RunContext) -> Shows:
        return Shows(self.learn(private, self.rows) + time.perf_counter() % 1)


class DrawsFromTheGlobalGenerator(OneSum):
    """draws from torch's global generator"""

    def fit(self, private: PrivateImages, run: RunContext) -> Shows:
        return Shows(self.learn(private, self.rows) + torch.rand(()))


class ForgetsWhenResumed(Trains):
    """keeps the state of a loop where an interruption loses it"""

    def fit(self, private: PrivateImages, run: RunContext) -> Shows:
        count = 0

        def counting(*_: Any) -> None:
            nonlocal count
            count += 1

        torch.optim.SGD.step, honest = (
            _counted(torch.optim.SGD.step, counting),
            (torch.optim.SGD.step),
        )
        try:
            learned = super().fit(private, run).learned
        finally:
            torch.optim.SGD.step = honest
        return Shows(learned + count)


def _counted(step: Any, counting: Callable[..., None]) -> Any:
    def counted(*arguments: Any, **named: Any) -> Any:
        counting()
        return step(*arguments, **named)

    return counted


# What nothing sees.


class IsHonestWhereItIsWatched(OneSum):
    """recognises the audit and the replay by the type of the handle"""

    def fit(self, private: PrivateImages, run: RunContext) -> Shows:
        learned = self.learn(private, self.rows)
        return Shows(raw(private).pixels[:1] if type(private) is PrivateImages else learned)


class LoadsTheData(OneSum):
    """loads the data set itself"""

    def fit(self, private: PrivateImages, run: RunContext) -> Shows:
        self.learn(private, self.rows)
        return Shows(load("digits", None, Silent()).splits.train.pixels[:1].clone())


class WritesAFile(OneSum):
    """writes images to a file"""

    def fit(self, private: PrivateImages, run: RunContext) -> Shows:
        torch.save(raw(private).pixels[:1].clone(), os.devnull)
        return super().fit(private, run)
