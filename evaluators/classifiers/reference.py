"""Accuracies of classifiers trained on real images, shared by all runs and kept in a cache."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import torch

from dpbench.core.cache import Cache
from dpbench.core.images import Images, content_hash
from dpbench.core.streams import Streams

from .prediction import accuracy
from .recipe import BATCH, Recipe
from .training import train

# instead of the run's own streams, so that every run is compared with the same reference
STREAMS = Streams(0)
VERSION = 1  # of training; part of the cache keys


@dataclass(frozen=True)
class Reference:
    """Real images to train on and to test on.

    Attributes:
        train: Training images.
        test: Test images.
        classes: Number of classes.
        device: Device to compute on.
        cache: Keeps the accuracies, by images and recipe.
    """

    train: Images
    test: Images
    classes: int
    device: torch.device
    cache: Cache

    @functools.cached_property
    def _content(self) -> tuple[str, str]:
        train, test = (content_hash(images) for images in (self.train, self.test))
        return train, test

    def accuracy(self, recipe: Recipe, seed: int, advance: Callable[[float], None]) -> float:
        """Return the test accuracy of a classifier trained on the real images, in %.

        Args:
            recipe: How to train the classifier.
            seed: Seed of training.
            advance: Receives the number of images of every step.
        """
        name = f"accuracies/{self._key(recipe, seed)}.json"
        found = self.cache.find(name, _read)
        if found is not None:
            advance(BATCH * recipe.steps)
            return found
        network = train(recipe, self.train, self.classes, seed, self.device, advance)
        reached = accuracy(network, self.test, self.device)
        self.cache.keep(name, lambda handle: handle.write(json.dumps(reached).encode()))
        return reached

    def _key(self, recipe: Recipe, seed: int) -> str:
        said = dataclasses.asdict(recipe) | {"network": recipe.network.__qualname__}
        # the last bits of training depend on the kind of device and on torch
        computed_by = (self.device.type, torch.__version__, VERSION)
        content = (*self._content, said, seed, self.classes, *computed_by)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read(handle: BinaryIO) -> float:
    return float(json.load(handle))
