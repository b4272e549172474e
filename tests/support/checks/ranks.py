"""The check that a step shared out over ranks is the step of one process."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from dpbench.core.streams import Streams
from dpbench.parallel.ranks import ALONE, Ranks
from dpbench.privacy import draws
from dpbench.privacy.events import DPSGDEvent
from tests.support.checks import expect, expect_close
from tests.support.private import KEY, NoisyRegression, Steps, flat, perceptron, some_images
from tests.support.ranks import on_ranks


def released(ranks: Ranks = ALONE, key: bytes = KEY) -> torch.Tensor:
    """What private training releases, ``(steps, weights)``."""
    event = DPSGDEvent(0.5, 0.7, 0.3, 4, "weights")
    steps = Steps(perceptron(), NoisyRegression(2), event, nominal_size=40, ranks=ranks)
    return torch.stack([flat(step) for step in steps(some_images(40), streams=Streams(0, key))])


def check_ranks(
    monkeypatch: pytest.MonkeyPatch, work: Callable[[Ranks], torch.Tensor] = released
) -> None:
    """Two and three ranks release what one process does, and the same on each."""
    monkeypatch.setattr(draws, "COPIES_DRAWN_TOGETHER", 16)
    alone = released()
    for size in (2, 3):
        first, *others = on_ranks(size, work)
        expect_close(first, alone, 1e-5, 1e-5, f"{size} ranks release what one process does")
        for other in others:
            expect(torch.equal(first, other), "all ranks have the same weights")
