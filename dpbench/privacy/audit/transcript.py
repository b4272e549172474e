"""The subject of an audit (the mechanism of a claim) and its observations (released sums)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpbench.core.errors import RunFailed
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.clipping import trainable
from dpbench.privacy.clipping.selection import Executions
from dpbench.privacy.dpsgd import Learner
from dpbench.privacy.events import DPSGDEvent, Event, GaussianEvent, HistogramEvent
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo

CANARIES = 1000
Array = NDArray[np.float32]
Audited = GaussianEvent | HistogramEvent | DPSGDEvent


@dataclass(frozen=True)
class Mechanism:
    """The subject of an audit: a privacy claim and the method that it is about.

    Attributes:
        info: Public facts about the private set.
        budget: The claimed epsilon and delta.
        events: Events that the claim rests on, in order.
        fit: Runs the private part of the method on a handle.
        device: Device to compute on.
        executions: Chooses how gradients are computed. Canaries use the choice made for the
            method's network. None means the first engine that fits.
    """

    info: PrivateSetInfo
    budget: PrivacyBudget
    events: tuple[Event, ...]
    fit: Callable[[PrivateImages], object]
    device: torch.device
    executions: Executions | None = None


@dataclass(frozen=True)
class Transcript:
    """What the canary runs released for one event, in units of C.

    Attributes:
        event: The claimed event.
        released: ``(steps, rows)``: the noisy sum of each step along each direction. The first
            directions belong to the canaries, the others to no one.
        contributed: ``(steps, rows)``: the same sums without noise.
    """

    event: Audited
    released: Array
    contributed: Array


@dataclass(frozen=True)
class OwnNoise:
    """What the method released on the empty set in one tensor, in units of sigma C.

    Attributes:
        tensor: Purpose of the event and name of the tensor.
        sum_squares: Sum of squares over all values and steps.
        count: Number of those values.
        largest: The largest of them, without its sign.
    """

    tensor: str
    sum_squares: float
    count: int
    largest: float


@dataclass(frozen=True)
class OwnReleases:
    """What the method released with its own network or features.

    Attributes:
        noise: Noise of each tensor.
        contributions: For each event the norm of one image's contribution to the first sum, over C.
    """

    noise: tuple[OwnNoise, ...]
    contributions: tuple[float, ...]


def finite(what: str, released: Tensor) -> Tensor:
    """Return ``released`` if all its values are finite.

    Raises:
        RunFailed: A value is not finite.
    """
    if not released.isfinite().all():
        raise RunFailed(f"{what}: releases hold values that are not finite")
    return released


def watch_steps(
    learner: Learner, batch_size: float, keep: Callable[[dict[str, Tensor]], None]
) -> None:
    """Pass the gradients of each optimizer step, times ``batch_size``, to ``keep``."""
    parameters = trainable(learner.model)

    def read(*_: object) -> None:
        keep({n: p.grad * batch_size for n, p in parameters.items() if p.grad is not None})

    learner.optimizer.register_step_pre_hook(read)
