"""Random subsets of images, with or without stratification by class."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from dpbench.core.images import Images
from dpbench.data.stratified import random_stratified_order


def random_subset(images: Images, size: int, rng: torch.Generator) -> Images:
    """Choose images at random without repetition, whatever their classes.

    Args:
        images: N images.
        size: How many to choose; all if there are fewer.
        rng: Random generator, on the CPU.

    Returns:
        ``min(size, N)`` images in their original order, so that choosing all gives the same set.
    """
    return images[torch.randperm(len(images), generator=rng)[:size].sort().values]


def nested_subsets(images: Images, sizes: Iterable[int], rng: torch.Generator) -> dict[int, Images]:
    """Choose nested random subsets, all stratified by class.

    Args:
        images: N images.
        sizes: Sizes of the subsets.
        rng: Random generator, on the CPU.

    Returns:
        The subset of each size that is at most N.
    """
    order = random_stratified_order(images.labels, rng)
    return {size: images[order[:size]] for size in sizes if size <= len(images)}
