"""Releases of the method's own ``fit``: a few private steps on no image, and one on one image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dpbench.core.errors import RunFailed
from dpbench.core.images import Images
from dpbench.core.progress import Silent
from dpbench.core.streams import Streams
from dpbench.privacy.audit.transcript import (
    Audited,
    Mechanism,
    OwnNoise,
    OwnReleases,
    finite,
    watch_steps,
)
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.clipping import Objective
from dpbench.privacy.dpsgd import Learner
from dpbench.privacy.events import (
    DPSGDEvent,
    Event,
    GaussianEvent,
    HistogramEvent,
    SelectionEvent,
)
from dpbench.privacy.ledger import PrivacyLedger
from dpbench.privacy.mechanisms import Candidate, PrivateImages
from dpbench.training.loop import Stage

# Private steps of the method's own training on the empty set.
OWN_STEPS = 4


class _Watched(PrivateImages):
    """A handle that keeps what a method releases, over few steps with every image in each batch.

    Its ledger has no limit; the canary runs check that the budget allows the events.
    """

    def __init__(
        self, mechanism: Mechanism, images: Images, steps: int, streams: Streams, folder: Path
    ) -> None:
        ledger = PrivacyLedger(PrivacyBudget(math.inf))
        super().__init__(images, mechanism.info, ledger, streams, mechanism.executions)
        folder.mkdir()
        self._claimed, self._steps, self._folder = mechanism.budget, steps, folder
        self.spent: list[Event] = []
        self.released: list[dict[str, list[Tensor]]] = []  # by event, tensor and step; over C

    @property
    def budget(self) -> PrivacyBudget:
        return self._claimed  # methods calibrate their noise to it

    def dp_sgd(
        self, learner: Learner, objective: Objective, event: DPSGDEvent, stage: Stage
    ) -> None:
        self._spend(event)
        few = replace(event, sample_rate=1.0, steps=min(event.steps, self._steps))
        watch_steps(learner, float(self.info.nominal_size), self._keep)
        stage = Stage("canaries", self._folder / f"{len(self.spent)}.stage", Silent())
        super().dp_sgd(learner, objective, few, stage)

    def gaussian_sum(self, features: Callable[[Images], Tensor], event: GaussianEvent) -> Tensor:
        self._spend(event)
        total = super().gaussian_sum(features, event)
        self._keep({"sum": total})
        return total

    def label_histogram(self, event: HistogramEvent) -> Tensor:
        self._spend(event)
        counts = super().label_histogram(event)
        self._keep({"counts": counts})
        return counts

    def select(
        self,
        candidates: Sequence[Candidate],
        score: Callable[[Candidate, Images], Tensor],
        event: SelectionEvent,
    ) -> Candidate:
        self._spend(event)  # it is left out of the audit
        return super().select(candidates, score, event)

    def _spend(self, event: Event) -> None:
        self.spent.append(event)
        self.released.append({})

    def _keep(self, totals: dict[str, Tensor]) -> None:
        event = self.spent[-1]
        assert isinstance(event, Audited)
        for name, total in totals.items():
            steps = self.released[-1].setdefault(name, [])
            steps.append(finite(event.purpose, total.cpu().double()) / event.sensitivity)


def own_releases(mechanism: Mechanism, streams: Streams, folder: Path) -> OwnReleases:
    """Run the method's own ``fit`` on no image and on one, and compare their releases."""
    spec = mechanism.info.spec
    rng = streams.public("evaluation", "canaries", "image")
    # black and white pixels give a large gradient
    pixels = 255 * torch.randint(0, 2, (1, *spec.shape), generator=rng, dtype=torch.uint8)
    one = Images(pixels, torch.zeros(1, dtype=torch.int64))
    without = _Watched(mechanism, one[:0], OWN_STEPS, streams, folder / "without")
    with_one = _Watched(mechanism, one, 1, streams, folder / "with one")
    for handle in (without, with_one):
        mechanism.fit(handle)
        if tuple(handle.spent) != mechanism.events:
            raise RunFailed(
                f"the method spends {handle.spent}, the claim rests on {list(mechanism.events)}"
            )
    noise, contributions = [], []
    for event, nobody, somebody in zip(
        without.spent, without.released, with_one.released, strict=True
    ):
        if isinstance(event, SelectionEvent):
            continue
        for name, steps in nobody.items():
            drawn = torch.stack(steps) / event.noise_multiplier
            tensor = f"{event.purpose}: {name}"
            largest = float(drawn.abs().max())
            noise.append(OwnNoise(tensor, float(drawn.square().sum()), drawn.numel(), largest))
        # the first step only, because after it the weights differ
        differences = [somebody[name][0] - steps[0] for name, steps in nobody.items()]
        contributions.append(math.hypot(*(float(part.norm()) for part in differences)))
    return OwnReleases(tuple(noise), tuple(contributions))
