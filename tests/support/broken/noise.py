"""Broken noise of DP-SGD."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from dpbench.core.streams import Streams
from dpbench.privacy.dpsgd import gaussian_noise
from tests.support.private import Gradients, flat

Noise = Callable[[Gradients, Streams, str, int], Gradients]


def scaled_by(factor: float) -> Noise:
    def noise(like: Gradients, streams: Streams, purpose: str, step: int) -> Gradients:
        drawn = gaussian_noise(like, streams, purpose, step)
        return {name: factor * part for name, part in drawn.items()}

    return noise


def cut_at(sigmas: float) -> Noise:
    """The variance of a normal distribution, nearly, without its tail."""

    def noise(like: Gradients, streams: Streams, purpose: str, step: int) -> Gradients:
        drawn = gaussian_noise(like, streams, purpose, step)
        return {name: part.clamp(-sigmas, sigmas) for name, part in drawn.items()}

    return noise


def in_half_precision(like: Gradients, s: Streams, purpose: str, step: int) -> Gradients:
    drawn = gaussian_noise(like, s, purpose, step)
    return {name: part.half().float() for name, part in drawn.items()}


def missing_on(name: str) -> Noise:
    def noise(like: Gradients, streams: Streams, purpose: str, step: int) -> Gradients:
        drawn = gaussian_noise(like, streams, purpose, step)
        return {n: torch.zeros_like(part) if n == name else part for n, part in drawn.items()}

    return noise


def the_same_at_every_step(like: Gradients, s: Streams, purpose: str, step: int) -> Gradients:
    return gaussian_noise(like, s, purpose, 0)


def the_same_for_every_purpose(like: Gradients, s: Streams, purpose: str, step: int) -> Gradients:
    return gaussian_noise(like, s, "any", step)


def the_same_on_every_tensor(like: Gradients, s: Streams, purpose: str, step: int) -> Gradients:
    drawn = flat(gaussian_noise(like, s, purpose, step))
    return {name: drawn[: part.numel()].view(part.shape) for name, part in like.items()}


def at_every_other_step(like: Gradients, s: Streams, purpose: str, step: int) -> Gradients:
    drawn = gaussian_noise(like, s, purpose, step)
    return {n: (math.sqrt(2) if step % 2 else 0) * part for n, part in drawn.items()}


def uniform(like: Gradients, streams: Streams, purpose: str, step: int) -> Gradients:
    draw = streams.secret("dp-noise", purpose, step).uniform
    width = math.sqrt(3)  # unit variance
    return {
        name: torch.from_numpy(draw(-width, width, tuple(part.shape))).float()
        for name, part in like.items()
    }


def from_the_public_seed(like: Gradients, s: Streams, purpose: str, step: int) -> Gradients:
    generator = s.public("diffusion-noise", purpose, step)
    return {name: torch.randn(part.shape, generator=generator) for name, part in like.items()}


class Quieter(Streams):
    """Secret noise of 0.97 times the scale."""

    def secret(self, name: str, *path: object) -> Any:
        honest = super().secret(name, *path)

        class Generator:
            def standard_normal(self, size: int, dtype: str) -> Any:
                return np.float32(0.97) * honest.standard_normal(size, dtype=dtype)  # type: ignore[call-overload]

        return Generator()


class QuieterDPNoise(Quieter):
    """Secret noise of 0.97 times the scale; the other secret streams are honest."""

    def secret(self, name: str, *path: object) -> Any:
        kind = Quieter if name == "dp-noise" else Streams
        return kind.secret(self, name, *path)
