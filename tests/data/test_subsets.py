from __future__ import annotations

import torch

from dpbench.data.subsets import nested_subsets, random_subset
from tests.support.quarters import images


def test_subsets_of_all_images_are_all_images() -> None:
    pool = images(20, 0)
    chosen = nested_subsets(pool, (20, 21), torch.Generator().manual_seed(0))
    assert list(chosen) == [20]
    whole = random_subset(chosen[20], 20, torch.Generator())
    assert whole.pixels.sum() == pool.pixels.sum()
