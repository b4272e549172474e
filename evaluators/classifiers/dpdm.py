"""The three classifiers of DPDM (Dockhorn et al. 2022), as in its downstream evaluation."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import nn

from dpbench.core.images import ImageSpec

from .networks import logistic_regression, mlp
from .recipe import BATCH, Recipe

EPOCHS = 50


def dpdm_cnn(spec: ImageSpec, classes: int) -> nn.Module:
    """Return the CNN of DPDM's evaluation; 1152-128-10 after the convolutions on 28 x 28 images.

    Source: Dockhorn et al. 2022, ``train_downstream_classifiers.py`` of its repository. It
    does not pad, so that images need sides of at least ``DPDM_CNN_SMALLEST_SIDE`` pixels.
    """
    places = math.prod(((side - 2) // 2 - 2) // 2 - 2 for side in (spec.height, spec.width))
    return nn.Sequential(
        nn.Conv2d(spec.channels, 32, 3),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Conv2d(32, 64, 3),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Conv2d(64, 128, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128 * places, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, classes),
    )


DPDM_CNN_SMALLEST_SIDE = 18


def dpdm_recipes(images: int) -> tuple[Recipe, Recipe, Recipe]:
    """Return the recipes of logistic regression, MLP and CNN: Adam at 3e-4 for 50 epochs.

    Args:
        images: Number of images to train on.
    """
    logreg = Recipe(
        id="logreg/adam-50epochs",
        network=logistic_regression,
        steps=-(-EPOCHS * images // BATCH),
        adam=True,
        learning_rate=3e-4,
        label_smoothing=0,
    )
    return (
        logreg,
        replace(logreg, id="mlp100/adam-50epochs", network=mlp),
        replace(
            logreg,
            id="cnn32-64-128/adam-50epochs",
            network=dpdm_cnn,
            smallest_side=DPDM_CNN_SMALLEST_SIDE,
        ),
    )
