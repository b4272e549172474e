"""A logical batch, cut into physical batches and into chunks of draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dpbench.privacy import dpsgd, draws
from dpbench.privacy.clipping import engine
from tests.support import broken
from tests.support.checks import Detected
from tests.support.checks.clipping import (
    check_physical_batches,
)
from tests.support.private import (
    Copies,
    Gradients,
    NoisyRegression,
    Regression,
    rng,
    some_images,
)


def test_the_physical_batch_size_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    check_physical_batches(monkeypatch)


@pytest.mark.parametrize(
    "name, twin",
    [
        ("clipping.folded.clipped_sum", broken.clipping.averages),
        ("clipping.folded.clipped_sum", broken.clipping.clips_the_batch),
        ("dpsgd.gradient_sum", broken.clipping.drops_the_ragged_batch),
        ("dpsgd.drawn_copies", broken.clipping.draws_one_after_another),
    ],
)
def test_changing_the_physical_batch_size_catches(
    name: str, twin: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"dpbench.privacy.{name}", twin)
    with pytest.raises(Detected):
        check_physical_batches(monkeypatch)


def test_the_draws_of_a_place_depend_on_nothing_but_the_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(draws, "COPIES_DRAWN_TOGETHER", 16)
    images, device = some_images(60), torch.device("cpu")

    def drawn(batch: Tensor) -> Callable[[int, int], Copies]:
        return draws.drawn_copies(NoisyRegression(2), images, batch, rng, device)

    batch = torch.arange(3, 53)
    whole = drawn(batch)(0, 50)
    assert [part.shape[:2] for part in whole] == [(50, 2), (50, 2)]
    for first, last in ((0, 1), (0, 8), (7, 9), (3, 33), (48, 50), (49, 50), (8, 16)):
        for shorter in (batch, batch[:last]):
            for part, expected in zip(drawn(shorter)(first, last), whole, strict=True):
                assert torch.equal(part, expected[first:last])
    part = images[batch]
    clean, _ = Regression(2).draw(part.pixels, part.labels, rng())
    noise = (whole[0] - clean).flatten(1)
    assert torch.pdist(noise).min() > 0.1, "two places have the same draws"


def test_partial_sums_are_added_by_name() -> None:
    class Twice(nn.Module):
        """Two weights of one shape."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = (nn.Parameter(torch.ones(16)) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) @ self.first + (3 * x.flatten(1)) @ self.second

    def reversed_order(*arguments: Any) -> Gradients:
        return dict(reversed(engine("loop")(*arguments).items()))

    first, second = (
        dpsgd.gradient_sum(
            Twice(),
            NoisyRegression(2),
            some_images(5),
            torch.arange(5),
            clipping_norm=0.5,
            draws=rng,
            clipped=clipped,
            size=2,
        )
        for clipped in (engine("loop"), reversed_order)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
