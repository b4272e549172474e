"""Choosing an engine and a physical batch size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from torch import Tensor

from dpbench.core.errors import UserError
from dpbench.core.images import ImageSpec
from dpbench.privacy.clipping import Objective, Predict, selection
from dpbench.privacy.clipping.selection import choose
from tests.support.private import (
    Regression,
    convolutions,
    perceptron,
)


@dataclass(frozen=True)
class MixesExamples(Regression):
    def loss(self, predict: Predict, *copies: Tensor) -> Tensor:
        losses = super().loss(predict, *copies)
        return losses * losses.mean()


@dataclass(frozen=True)
class ExamplesOutermost(Regression):
    """Gives the network its rows in another order than ``as_rows``."""

    def loss(self, predict: Predict, *copies: Tensor) -> Tensor:
        x, target = copies
        return (predict(x.flatten(0, 1)).view_as(target) - target).square().mean(dim=1)


@pytest.mark.parametrize("objective", [MixesExamples(2), ExamplesOutermost(2)])
def test_an_engine_is_held_against_autograd_before_it_is_used(objective: Objective) -> None:
    spec = ImageSpec(1, 4, 4)
    assert choose(perceptron(), Regression(2), spec, "folded").engine == "folded"
    with pytest.raises(UserError, match="disagree on"):
        choose(perceptron(), objective, spec, "folded")
    assert choose(perceptron(), objective, spec, "auto").engine in ("vmap", "loop")


def test_auto_takes_an_engine_that_can_do_the_model() -> None:
    assert choose(convolutions(), Regression(2), ImageSpec(1, 4, 4), "auto").engine != "folded"


def test_what_was_timed_once_is_chosen_again(tmp_path: Path) -> None:
    cache = tmp_path / "engines.json"
    first = choose(perceptron(), Regression(2), ImageSpec(1, 4, 4), "auto", cache)
    for _ in range(3):
        assert choose(perceptron(), Regression(2), ImageSpec(1, 4, 4), "auto", cache) == first
    cache.write_text("{")
    assert choose(perceptron(), Regression(2), ImageSpec(1, 4, 4), "loop", cache).engine == "loop"


def test_physical_batches_fit_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def size(memory: float) -> int:
        monkeypatch.setattr(selection, "_memory", lambda device: memory)
        return choose(perceptron(), Regression(2), ImageSpec(1, 4, 4), "vmap").physical_batch

    assert size(1e12) == selection.CPU_COPIES // 2
    assert 1 < size(1e5) < selection.CPU_COPIES // 2
    assert size(1.0) == 1
