"""Poisson subsampling of private images, which is what the accountant assumes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def poisson_sample(rng: np.random.Generator, population: int, sample_rate: float) -> Tensor:
    """Take each index independently with probability ``sample_rate``.

    Args:
        rng: A secret stream, because subsampling amplifies privacy only if batches are unknown.
        population: Number of indices.
        sample_rate: q, in [0, 1].

    Returns:
        ``(B,)``, int64, sorted. B is random and may be 0; an empty batch is a step like any other.
    """
    return torch.from_numpy(np.flatnonzero(rng.random(population) < sample_rate))
