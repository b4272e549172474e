"""One fit of a neighbour replay, as short as the smoke profile, and what comes out of it."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dpbench.api.method import Method, Plan, Predictor, RunContext, Sampler, uniform_labels
from dpbench.api.profiles import SMOKE, Profile
from dpbench.api.sources import PublicSource
from dpbench.core.cache import Cache
from dpbench.core.errors import RunFailed, contained
from dpbench.core.progress import Silent
from dpbench.core.streams import Streams, reproducible_key
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.clipping.selection import Executions
from dpbench.privacy.ledger import PrivacyLedger
from dpbench.privacy.mechanisms import PrivateSetInfo
from dpbench.privacy.replay.handle import Comparison, Release, ReplayedImages
from dpbench.privacy.replay.neighbours import Neighbour
from dpbench.runs.fitted import rebuilt, stored
from dpbench.runs.request import PlannedRun
from dpbench.runs.training_folder import JOURNAL
from dpbench.training.evaluations import GradientEvaluations
from dpbench.training.loop import Stage, Stateful
from dpbench.training.pretraining import Pretraining

CPU = torch.device("cpu")
OF_OPTIMIZERS = "torch._dynamo"  # takes seconds to import
SAMPLES_PER_CLASS = 2
FEWEST_STEPS = 3  # of a loop that is cut short


@dataclass(frozen=True)
class Subject:
    """What is replayed.

    Attributes:
        method: The method.
        info: What is public about the private set.
        budget: The budget of the run. The noise is off, but methods plan by it.
        profile: Profile of the run.
        seed: Public seed of the run.
        public: The public images, or None.
        engine: Engine of private gradients, or ``auto``; None for the first that fits.
        timings: Keeps timings of engines; None for no cache.
    """

    method: Method
    info: PrivateSetInfo
    budget: PrivacyBudget = PrivacyBudget(1.0)
    profile: Profile = SMOKE
    seed: int = 0
    public: PublicSource | None = None
    engine: str | None = None
    timings: Cache | None = None

    @classmethod
    def of(cls, planned: PlannedRun, public: PublicSource | None, timings: Cache | None) -> Subject:
        """The method of a planned run."""
        return cls(
            planned.resolved.method,
            planned.info,
            planned.budget,
            planned.profile,
            planned.request.seed,
            public,
            planned.request.engine,
            timings,
        )


@dataclass(frozen=True)
class Fitted:
    """What a fit released, and what a run would publish or measure of it.

    Attributes:
        releases: What was released, without noise; empty where it was compared already.
        comparisons: Releases and their circumstances, compared with those on D.
        outputs: By name a digest of what must not depend on private images.
        engines: The engines that were chosen, by purpose.
        as_planned: Whether the events that were spent are those of the plan.
        optimizes: Whether torch imported what its optimizers need at their first step.
    """

    releases: Sequence[Release]
    comparisons: Sequence[Comparison]
    outputs: dict[str, bytes]
    engines: dict[str, Any] = field(default_factory=dict)
    as_planned: bool = True
    optimizes: bool = False


def fit(
    subject: Subject,
    neighbour: Neighbour,
    folder: Path,
    number: int,
    on_d: Fitted | None = None,
    interrupt_at: int | None = None,
    engines: Mapping[str, Any] | None = None,
) -> Fitted | None:
    """Fit a method without noise, and draw from what it gives.

    Args:
        subject: The method.
        neighbour: The private images.
        folder: Training state, which an interrupted fit leaves for the next one.
        number: Number of the fit. Global generators start elsewhere in each, as in each process
            that a user starts, so that a method that draws from them is not taken for
            deterministic.
        on_d: The fit whose releases are held fixed; None on D itself.
        interrupt_at: Number of the release at which the fit is interrupted.
        engines: Engines that an earlier fit chose.

    Returns:
        What came out of it; None if it was interrupted.

    Raises:
        RunFailed: What was fitted cannot be stored, or gives something else when it is rebuilt.
    """
    for draw in (random.random, np.random.random, lambda: torch.rand(())):
        for _ in range(number):
            draw()
    chosen = dict(engines or {})
    executions = None
    if subject.engine is not None:
        executions = Executions(subject.engine, chosen, subject.timings)
    plan = subject.method.plan(subject.info, subject.budget)
    evaluations = GradientEvaluations(plan.evaluations(private=True), plan.evaluations(False))
    ledger = PrivacyLedger(subject.budget, folder / JOURNAL)
    private = ReplayedImages(
        neighbour,
        subject.info,
        ledger,
        reproducible_key(subject.seed),
        None if on_d is None else on_d.releases,
        executions,
        evaluations,
        interrupt_at,
    )
    run = _Short(
        profile=subject.profile,
        device=CPU,
        streams=Streams(subject.seed),
        progress=Silent(),
        folder=folder,
        public=subject.public,
        # a cache of its own: public weights that were learned from D would hide in a shared one
        cache=folder / "cache",
        evaluations=evaluations,
    )
    try:
        with closing(private), contained("the method"):
            fitted = subject.method.fit(private, run)
    except KeyboardInterrupt:
        return None
    plan = subject.method.plan(subject.info, subject.budget)
    checkpoint = stored(fitted)
    name = "samples" if isinstance(fitted, Sampler) else "predictions"
    drawn = _drawn(rebuilt(subject.method, checkpoint, subject.info, CPU), subject)
    if on_d is None and drawn != _drawn(fitted, subject):
        raise RunFailed(
            "what restore() rebuilds from state() does not give what fit returned: it gives other "
            f"{name}, so the state leaves something out"
        )
    outputs = {
        "checkpoint": checkpoint,
        name: drawn,
        # a resumed fit finds its public weights made, and does not count them again
        "cost": repr((ledger.releases(), evaluations.private)).encode(),
        "plan": _described(plan),
    }
    return Fitted(
        private.releases if on_d is None else (),
        private.comparisons(),
        {name: hashlib.sha256(content).digest() for name, content in outputs.items()},
        chosen,
        as_planned=ledger.events == plan.events,
        optimizes=OF_OPTIMIZERS in sys.modules,
    )


def _drawn(fitted: Sampler | Predictor, subject: Subject) -> bytes:
    """A few samples, or predictions of random images."""
    info, rng = subject.info, Streams(subject.seed).public("sampling")
    labels = uniform_labels(SAMPLES_PER_CLASS * info.classes, info.classes)
    if isinstance(fitted, Sampler):
        return fitted.sample(labels, rng).numpy().tobytes()
    noise = torch.randint(256, (len(labels), *info.spec.shape), generator=rng, dtype=torch.uint8)
    return fitted.predict(noise).numpy().tobytes()


def _described(plan: Plan) -> bytes:
    stages = [(each.name, each.steps, each.evaluations, each.private) for each in plan.stages]
    return repr((stages, plan.events, plan.parameters, plan.public)).encode()


class _Short(RunContext):
    """Cuts loops to what the smoke profile allows, where another profile allows more."""

    def stage(self, name: str, label: str) -> Stage:
        return _shortened(super().stage(name, label))

    def pretraining(self, recipe: Mapping[str, object], label: str) -> Pretraining:
        pretraining = super().pretraining(recipe, label)
        _shortened(pretraining.stage)
        return pretraining


def _shortened(stage: Stage) -> Stage:
    whole = stage.steps

    def steps(
        total: int,
        state: Mapping[str, Stateful],
        unit: str = "images",
        per_step: float = 1,
        note: Callable[[int], str] = lambda step: "",
        counted: bool = False,
    ) -> Iterator[int]:
        most = max(FEWEST_STEPS, int(SMOKE.compute.private_evaluations // per_step))
        # the note, an epsilon that takes long to compute, would not be shown
        return whole(min(total, most), state, unit, per_step, counted=counted)

    stage.steps = steps  # type: ignore[method-assign]
    return stage
