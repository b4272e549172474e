"""Random subsets of images, blind to classes or stratified by them."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from dpbench.core.images import Images
from dpbench.data.stratified import random_stratified_order


def subset(images: Images, size: int, rng: torch.Generator) -> Images:
    """A random choice of images without repetition, blind to classes.

    Args:
        images: N images.
        size: How many to take; all where there are fewer.
        rng: Source of the choice, on the CPU.

    Returns:
        ``min(size, N)`` images in their old order, so that a set that is taken whole is itself.
    """
    return images[torch.randperm(len(images), generator=rng)[:size].sort().values]


def nested(images: Images, sizes: Iterable[int], rng: torch.Generator) -> dict[int, Images]:
    """Subsets of rising sizes, each within the next, all stratified by class.

    Args:
        images: N images.
        sizes: Of the subsets.
        rng: Source of the choice, on the CPU.

    Returns:
        For every size up to N, so many images.
    """
    order = random_stratified_order(images.labels, rng)
    return {size: images[order[:size]] for size in sizes if size <= len(images)}
