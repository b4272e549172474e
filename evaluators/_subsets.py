"""Random subsets of images."""

from __future__ import annotations

import torch

from dpbench.types import Images


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
