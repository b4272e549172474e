"""What an audit looks at: the mechanisms of a claim, and what they released."""

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
    """What is audited.

    Attributes:
        info: What is public about the private set.
        budget: What is claimed.
        events: The events that the claim rests on, in order.
        fit: Runs the method on a handle, leaving out what it does without private images.
        device: Where to compute.
        executions: Chooses how gradients are computed; the canaries go by what is chosen for the
            method's network. None for the first engine that fits.
    """

    info: PrivateSetInfo
    budget: PrivacyBudget
    events: tuple[Event, ...]
    fit: Callable[[PrivateImages], object]
    device: torch.device
    executions: Executions | None = None


@dataclass(frozen=True)
class Transcript:
    """What the canary runs released for one event; everything in units of C.

    Attributes:
        event: What is claimed.
        released: ``(steps, rows)``: each step's sum, noise included, along each direction; the
            first directions are the canaries', the others nobody's.
        contributed: ``(steps, rows)``: the same without its noise.
    """

    event: Audited
    released: Array
    contributed: Array


@dataclass(frozen=True)
class OwnNoise:
    """What the method itself released on no image, in one tensor; in units of sigma C.

    Attributes:
        tensor: Event and name.
        sum_squares: Over all values and steps.
        count: How many those are.
    """

    tensor: str
    sum_squares: float
    count: int


@dataclass(frozen=True)
class OwnReleases:
    """What the method itself released, with its own network or features.

    Attributes:
        noise: Of each tensor.
        contributions: For each event, the norm of what one image adds to the first sum, over C.
    """

    noise: tuple[OwnNoise, ...]
    contributions: tuple[float, ...]


def finite(what: str, released: Tensor) -> Tensor:
    """What was released, if it is finite.

    Raises:
        RunFailed: It is not.
    """
    if not released.isfinite().all():
        raise RunFailed(f"{what}: releases hold values that are not finite")
    return released


def watch_steps(
    learner: Learner, batch_size: float, keep: Callable[[dict[str, Tensor]], None]
) -> None:
    """Pass what each step of a learner's optimizer gets, times ``batch_size``, to ``keep``."""
    parameters = trainable(learner.model)

    def read(*_: object) -> None:
        keep({n: p.grad * batch_size for n, p in parameters.items() if p.grad is not None})

    learner.optimizer.register_step_pre_hook(read)
