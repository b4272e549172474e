"""Poisson subsampling: the sampling that the accountant assumes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def poisson_sample(rng: np.random.Generator, population: int, sample_rate: float) -> Tensor:
    """Take each index independently with probability ``sample_rate``.

    Args:
        rng: A secret stream: amplification by subsampling holds for unknown batches only.
        population: Number of indices.
        sample_rate: q, in [0, 1].

    Returns:
        ``(B,)``, int64, sorted. B is random and can be 0; such a step is a step like any other.
    """
    return torch.from_numpy(np.flatnonzero(rng.random(population) < sample_rate))
