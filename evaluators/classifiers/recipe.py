"""How a classifier is trained: everything but the images and the seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from dpbench.core.images import ImageSpec
from dpbench.training.augmentation import PLAIN, Augmentation

from .networks import small_cnn

BATCH = 128


DROP = 0.2


@dataclass(frozen=True)
class Sgd:
    """Settings of stochastic gradient descent.

    Attributes:
        momentum: Momentum, in [0, 1).
        nesterov: Whether momentum is Nesterov's.
        weight_decay: Factor of the weights that are added to the gradient.
        schedule: Schedule of the learning rate: ``one-cycle`` peaks at it after a quarter of the
            steps, ``cosine`` decays from it to 0, ``constant`` stays.
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
        adam: Whether to use Adam at ``learning_rate``, rather than SGD.
        learning_rate: Learning rate; the peak or start of SGD's schedule.
        label_smoothing: Label smoothing of the cross-entropy, in [0, 1).
        smallest_side: Images with a shorter side than this many pixels do not fit the network.
        sgd: Momentum, weight decay and schedule of SGD.
        batch: Number of images in a minibatch.
        average: Decay of the exponential moving average that replaces the last weights, in (0, 1);
            0 to keep the last weights. Its batch normalisation gets the statistics of all images
            without augmentation.
        augmentation: Augmentation of each copy of an image.
        copies: Copies of each image in a minibatch; the gradient is the mean over them.
        drops: Fractions of the steps after which the learning rate is multiplied by ``DROP``, with
            Adam and with the schedule ``constant``.
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


def small_cnn_recipe(steps: int, label_smoothing: float) -> Recipe:
    """Return the recipe of ``small_cnn``: SGD with a peak learning rate of 0.1.

    Args:
        steps: Optimizer steps.
        label_smoothing: Label smoothing of the cross-entropy, in [0, 1).
    """
    return Recipe(
        id=f"cnn16-32-64/sgd{steps}",
        network=small_cnn,
        steps=steps,
        adam=False,
        learning_rate=0.1,
        label_smoothing=label_smoothing,
    )
