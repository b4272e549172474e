"""Broken Poisson samplers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dpbench.core.streams import Streams
from dpbench.privacy.sampling import poisson_sample


def shuffles(rng: np.random.Generator, population: int, sample_rate: float) -> Tensor:
    chosen = rng.permutation(population)[: round(population * sample_rate)]
    return torch.from_numpy(np.sort(chosen))


def replaces(rng: np.random.Generator, population: int, sample_rate: float) -> Tensor:
    size = rng.binomial(population, sample_rate)
    return torch.from_numpy(rng.integers(0, population, size))


def samples_too_often(rng: np.random.Generator, population: int, sample_rate: float) -> Tensor:
    return poisson_sample(rng, population, 1.05 * sample_rate)


def favours_some(rng: np.random.Generator, population: int, sample_rate: float) -> Tensor:
    rates = sample_rate * np.where(np.arange(population) % 2, 1.1, 0.9)
    return torch.from_numpy(np.flatnonzero(rng.random(population) < rates))


def takes_neighbours_together(
    rng: np.random.Generator, population: int, sample_rate: float
) -> Tensor:
    pairs = rng.random((population + 1) // 2) < sample_rate
    return torch.from_numpy(np.flatnonzero(np.repeat(pairs, 2)[:population]))


def takes_the_first_batch_again(
    rng: np.random.Generator, population: int, sample_rate: float
) -> Tensor:
    return poisson_sample(Streams(0, bytes(32)).secret("poisson", 0), population, sample_rate)


def never_empty(rng: np.random.Generator, population: int, sample_rate: float) -> Tensor:
    while len(batch := poisson_sample(rng, population, sample_rate)) == 0:
        pass
    return batch
