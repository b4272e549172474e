"""How a classifier is trained: everything but the images and the seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from dpbench.core.images import ImageSpec
from dpbench.training.augmentation import PLAIN, Augmentation

BATCH = 128


DROP = 0.2


@dataclass(frozen=True)
class Sgd:
    """How SGD goes its steps.

    Attributes:
        momentum: In [0, 1).
        nesterov: Whether the momentum is Nesterov's.
        weight_decay: Added to the gradient, times the weights.
        schedule: Of the learning rate: ``one-cycle`` peaks at it after a quarter of the steps,
            ``cosine`` goes from it to 0.
    """

    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    schedule: Literal["one-cycle", "cosine", "constant"] = "one-cycle"


@dataclass(frozen=True)
class Recipe:
    """How to train one classifier: everything but the images and the seed.

    Attributes:
        id: Names network and schedule in records, e.g. ``cnn16-32-64/sgd600``.
        network: Builds it for images of a shape and a number of classes; its input is
            ``(B, C, H, W)``, float32 in [-1, 1], its output ``(B, classes)`` logits.
        steps: Optimizer steps, of ``batch`` images each.
        adam: Adam at ``learning_rate``; otherwise SGD as ``sgd`` says.
        learning_rate: See ``adam`` and ``sgd``.
        label_smoothing: Of the cross-entropy.
        smallest_side: Images with a shorter side than this many pixels do not fit the network.
        sgd: Momentum, weight decay and schedule.
        batch: Images of a minibatch.
        average: Decay of the exponential moving average that takes the place of the last weights,
            in (0, 1); 0 for the last weights. Its batch normalisation gets the statistics of all
            images without augmentation.
        augmentation: Of the copies of an image.
        copies: How often each image is in a minibatch: the gradient is the mean over its copies.
        drops: After which shares of the steps the learning rate falls to ``DROP`` of itself, under
            Adam and the schedule ``constant``.
    """

    id: str
    network: Callable[[ImageSpec, int], nn.Module]
    steps: int
    adam: bool
    learning_rate: float
    label_smoothing: float
    smallest_side: int = 1
    sgd: Sgd = Sgd()
    batch: int = BATCH
    average: float = 0.0
    augmentation: Augmentation = PLAIN
    copies: int = 1
    drops: tuple[float, ...] = ()
