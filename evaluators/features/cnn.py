"""The feature extractor that is always available: a CNN trained on the data set.

Its weights are pinned for the package's data sets: their files in ``weights/`` must have the
SHA-256 below. For any other data set they are trained by the same recipe on its train split, with
a constant seed, and kept in a cache.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dpbench.core.cache import Cache
from dpbench.core.errors import RunFailed
from dpbench.core.files import write_arrays
from dpbench.core.images import Images, ImageSpec, content_hash
from dpbench.core.pixels import from_pixels
from dpbench.core.progress import Progress

from ..classifiers.networks import convolutions
from ..classifiers.recipe import BATCH, Recipe
from ..classifiers.training import train
from .extractor import Extractor

WEIGHTS = Path(__file__).parent.with_name("weights")


PINNED = {
    "digits": "06211d16539c28a317a053a4ad0e521e3409eef7873ccb8f8c3f62984fb6c1ef",
    "fashionmnist": "9a819eb31d21d95b046a54c5ab738981d1f6020c183ae0dd807e48a226d79c1b",
}


# a new recipe needs a new number, which is part of the extractors' ids and of the cache's names
RECIPE = 1


SEED = 2024


CNN_FEATURES = 64


class FeatureCnn(nn.Module):
    """A classifier whose features are the mean activations of its last convolution.

    Args:
        channels: Number of channels of the images.
        classes: Number of classes.
    """

    def __init__(self, channels: int, classes: int) -> None:
        """Draw the initial weights."""
        super().__init__()
        self.convolutions = nn.Sequential(*convolutions(channels))
        self.head = nn.Linear(CNN_FEATURES, classes)

    def features(self, images: Tensor) -> Tensor:
        """Map ``(B, C, H, W)``, float32 in [-1, 1], to ``(B, CNN_FEATURES)``."""
        activations: Tensor = self.convolutions(images)
        return activations.mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(B, C, H, W)``, float32 in [-1, 1], to logits ``(B, classes)``."""
        logits: Tensor = self.head(self.features(images))
        return logits


def train_extractor(
    images: Images,
    classes: int,
    seed: int,
    advance: Callable[[float], None] = lambda images: None,
) -> FeatureCnn:
    """Train the CNN by recipe 1: 1500 steps of SGD at batch 128, one-cycle to .1, on the CPU.

    Args:
        images: The whole train split.
        classes: Number of classes.
        seed: Seed of initial weights and minibatches; ``SEED`` for the pinned weights.
        advance: Receives the number of images of every step.

    Returns:
        The network in evaluation mode, on the CPU.
    """
    network = train(_cnn_recipe(), images, classes, seed, torch.device("cpu"), advance)
    assert isinstance(network, FeatureCnn)
    return network


def _cnn_recipe() -> Recipe:
    def build(spec: ImageSpec, classes: int) -> nn.Module:
        return FeatureCnn(spec.channels, classes)

    return Recipe("cnn64", build, 1500, adam=False, learning_rate=0.1, label_smoothing=0)


def cnn_extractor(
    dataset: str,
    classes: int,
    train_split: Images,
    cache: Cache,
    device: torch.device,
    progress: Progress,
) -> Extractor:
    """Return the CNN of a data set, with pinned weights or else trained by the pinned recipe.

    The last bits of trained networks depend on the machine; keep that in mind when comparing
    distances between machines. They are always trained on the CPU, so that they do not depend on
    the device.

    Args:
        dataset: Name of the data set.
        classes: Number of classes.
        train_split: The whole real train split; ignored if weights are pinned.
        cache: Keeps trained networks.
        device: Device to compute features on.
        progress: Receives progress updates of training.

    Raises:
        RunFailed: A file of pinned weights was changed or damaged.
    """
    if dataset in PINNED:
        network = pinned_network(dataset)
        identity = f"{dataset}-{PINNED[dataset][:8]}"
    else:
        content = content_hash(train_split)
        network = _network_by_recipe(
            train_split, classes, cache, f"cnn64-recipe{RECIPE}-{content}.npz", progress
        )
        identity = f"recipe{RECIPE}-{content[:8]}"
    network = network.to(device)
    return Extractor(
        f"cnn64-{identity}",
        CNN_FEATURES,
        lambda pixels: network.features(from_pixels(pixels)),
        batch=500,
    )


def pinned_network(dataset: str, folder: Path = WEIGHTS) -> FeatureCnn:
    """Return the network with a data set's pinned weights.

    Raises:
        RunFailed: The file was changed or damaged.
    """
    file = folder / f"{dataset}.npz"
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != PINNED[dataset]:
        raise RunFailed(
            f"{file} has SHA-256 {found[:16]}..., not {PINNED[dataset][:16]}... as released: "
            "it was changed or damaged; reinstall dpbench-images"
        )
    return _read_network(io.BytesIO(content))


def write_network(file: Path, network: FeatureCnn) -> None:
    """Write weights as ``.npz``, one float32 array per name of the state."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_arrays(file, _weights(network))


def _weights(network: FeatureCnn) -> dict[str, NDArray[np.float32]]:
    # the only integers of the state count batches, which only training uses
    return {k: v.numpy() for k, v in network.state_dict().items() if v.is_floating_point()}


def _read_network(source: BinaryIO) -> FeatureCnn:
    with np.load(source, allow_pickle=False) as arrays:
        state = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    network = FeatureCnn(state["convolutions.0.weight"].shape[1], len(state["head.bias"]))
    network.load_state_dict(network.state_dict() | state)
    return network.eval()


def _network_by_recipe(
    images: Images, classes: int, cache: Cache, name: str, progress: Progress
) -> FeatureCnn:
    network = cache.find(name, _read_network)
    if network is None:
        total = BATCH * _cnn_recipe().steps
        with progress.task("train the feature extractor", total, "images") as task:
            trained = train_extractor(images, classes, SEED, task.advance)
        content = io.BytesIO()
        np.savez(content, **_weights(trained))  # type: ignore[arg-type]
        cache.keep(name, lambda handle: handle.write(content.getbuffer()))
        content.seek(0)
        network = _read_network(content)  # as later runs have it, to the last bit
    return network
