"""Neighbour replay of the methods of ``tests.support.methods``, on a small set."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dpbench.core.images import Images
from dpbench.core.progress import Silent
from dpbench.privacy.mechanisms import PrivateSetInfo
from dpbench.privacy.replay.handle import Comparison
from dpbench.privacy.replay.neighbours import neighbours
from dpbench.runs.check import replay
from dpbench.runs.replayed_fit import Subject
from tests.support.checks import expect
from tests.support.methods import Honest
from tests.support.private import rng


def small_set() -> Images:
    # darker than white and brighter than black, so that the neighbours are no strangers' copies
    pixels = torch.randint(20, 200, (30, 1, 4, 4), generator=rng()).byte()
    return Images(pixels, torch.arange(30) % 3)


def replayed(method: Honest, *names: str) -> list[Comparison]:
    """Replay on a small set and its neighbours; with ``names``, on these neighbours only."""
    images = small_set()
    info = PrivateSetInfo("images", images.spec, 3, len(images))
    original, *others = neighbours(images)
    chosen = [each for each in others if not names or each.name in names]
    return replay(Subject(method, info), [original, *chosen], Silent())


def failures(comparisons: Sequence[Comparison]) -> set[str]:
    """What differs by more than it may."""
    return {each.purpose for each in comparisons if not each.ok}


def expect_no_difference(comparisons: Sequence[Comparison]) -> None:
    """Neighbours differ by no more than they may; an error on a neighbour is no measurement."""
    found = failures(comparisons)
    assert not any(each.startswith("fit: ") for each in found), found
    expect(not found, f"neighbours make no more difference than they may: {found}")
