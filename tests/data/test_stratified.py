from __future__ import annotations

import hashlib

import torch

from dpbench.core.streams import Streams
from dpbench.data.stratified import fixed_stratified_order, random_stratified_order


def test_the_fixed_order_is_the_same_permutation_for_ever() -> None:
    order = fixed_stratified_order(
        torch.arange(10).repeat_interleave(torch.arange(10, 110, 10))
    ).tolist()
    assert sorted(order) == list(range(550))
    digest = hashlib.sha256(",".join(map(str, order)).encode()).hexdigest()
    assert digest[:12] == "407ef44f8149"  # the same from pandas ranks and fractions


def test_every_prefix_of_a_stratified_order_has_the_classes_in_their_proportions() -> None:
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    order = random_stratified_order(labels, torch.Generator().manual_seed(0))
    assert order.sort().values.tolist() == list(range(100))
    for size in range(1, 101):
        counts = labels[order[:size]].bincount(minlength=3)
        assert (counts - size * torch.tensor([0.6, 0.3, 0.1])).abs().max() <= 1


def test_a_stratified_order_is_random_within_a_class() -> None:
    labels = torch.arange(40) % 2
    first, second = (
        random_stratified_order(labels, Streams(s).public("evaluation")) for s in (0, 1)
    )
    assert not torch.equal(first, second)
    assert torch.equal(first, random_stratified_order(labels, Streams(0).public("evaluation")))
