"""Broken training loops around DP-SGD."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dpbench.core.images import Images
from dpbench.core.progress import Silent
from dpbench.core.streams import Streams
from dpbench.privacy import dpsgd
from dpbench.privacy.clipping import Objective
from dpbench.privacy.dpsgd import Learner, train
from dpbench.privacy.events import DPSGDEvent
from dpbench.privacy.ledger import Allowance
from dpbench.training.loop import Stage, Stateful
from tests.support.broken import noise


def makes_one_step_more(
    images: Images, size: int, learner: Learner, *rest: Any, **named: Any
) -> None:
    train(images, size, learner, *rest, **named)
    learner.optimizer.step()


def trains_by(change: Callable[[DPSGDEvent], DPSGDEvent]) -> Any:
    """Training that goes by something else than the event it was allowed."""

    def altered(
        images: Images,
        size: int,
        learner: Learner,
        objective: Objective,
        allowance: Allowance,
        *rest: Any,
        **named: Any,
    ) -> None:
        honest = allowance.event
        assert isinstance(honest, DPSGDEvent)
        allowance.event = change(honest)
        # the divisor stays what the check takes it for
        size = round(size * honest.sample_rate / allowance.event.sample_rate)
        train(images, size, learner, objective, allowance, *rest, **named)
        allowance.event = honest

    return altered


def averages_weights_without_noise(
    images: Images,
    size: int,
    learner: Learner,
    objective: Objective,
    allowance: Allowance,
    streams: Streams,
    stage: Stage,
    *rest: Any,
    **named: Any,
) -> None:
    """Trains a second time without noise, and keeps the average of that."""
    clean = copy.deepcopy(learner)
    clean.optimizer._optimizer_step_post_hooks.clear()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(dpsgd, "gaussian_noise", noise.scaled_by(0.0))
        scratch = Stage("training", Path(folder) / "clean.stage", Silent())
        once_more = Allowance(allowance.event)
        train(images, size, clean, objective, once_more, streams, scratch, *rest, **named)
    train(images, size, learner, objective, allowance, streams, stage, *rest, **named)
    learner.average.load_state_dict(clean.average.state_dict())


samples_at_twice_the_rate = trains_by(lambda e: replace(e, sample_rate=min(1.0, 2 * e.sample_rate)))


adds_a_tenth_less_noise = trains_by(lambda e: replace(e, noise_multiplier=0.9 * e.noise_multiplier))


clips_at_twice_the_norm = trains_by(
    lambda e: replace(e, noise_multiplier=e.noise_multiplier / 2, clipping_norm=2 * e.clipping_norm)
)


def starts_over(stage: Stage, state: Mapping[str, Stateful]) -> int:
    """A resume that has forgotten how far it came."""
    return 0
