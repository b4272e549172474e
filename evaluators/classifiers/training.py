"""Classifiers of fixed recipe: networks, training of a fixed number of steps, accuracy."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import update_bn

from dpbench.core.images import Images, ImageSpec
from dpbench.core.pixels import from_pixels
from dpbench.training.augmentation import PLAIN, Augmentation
from dpbench.training.averaging import ExponentialAverage

BATCH = 128
# more images and copies than this go through a network in parts, for want of memory: batch
# normalisation then takes the statistics of each part
PHYSICAL_BATCH = 1024
# in evaluation mode the size of a batch changes speed only
PREDICTION_BATCH = 1000
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


def logistic_regression(spec: ImageSpec, classes: int) -> nn.Module:
    """One linear layer on the pixels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(spec.shape), classes))


def mlp(spec: ImageSpec, classes: int) -> nn.Module:
    """One hidden layer of 100 ReLUs; 784-100-10 on 28 x 28 grey images of ten classes."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(spec.shape), 100), nn.ReLU(), nn.Linear(100, classes)
    )


def convolutions(channels: int) -> list[nn.Module]:
    """Three 3 x 3 convolutions of 16, 32 and 64 channels: ``(B, channels, H, W)`` to a quarter.

    The first has stride 2 and the pooling of the second comes before its normalisation: on two
    CPU cores a step takes half the time of the usual order, at the same accuracy within 0.5%.

    Returns:
        Layers whose output is ``(B, 64, ceil(H / 4), ceil(W / 4))``.
    """
    return [
        nn.Conv2d(channels, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
    ]


def small_cnn(spec: ImageSpec, classes: int) -> nn.Module:
    """``convolutions``, pooled once more, and a linear layer; images of any size."""
    places = math.ceil(spec.height / 8) * math.ceil(spec.width / 8)
    return nn.Sequential(
        *convolutions(spec.channels),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(64 * places, classes),
    )


def dpdm_cnn(spec: ImageSpec, classes: int) -> nn.Module:
    """The CNN of DPDM's evaluation; 1152-128-10 behind the convolutions on 28 x 28 images.

    Source: Dockhorn et al. 2022, ``train_downstream_classifiers.py`` of its repository. No
    padding, so that images need sides of at least ``DPDM_CNN_SMALLEST_SIDE`` pixels.
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


def resnet18(spec: ImageSpec, classes: int) -> nn.Module:
    """ResNet18 with the stem for small images: 3 x 3, stride 1, no pooling (He et al. 2016)."""
    return _resnet("resnet18", spec, classes)


def resnet50(spec: ImageSpec, classes: int) -> nn.Module:
    """ResNet50 with the stem for small images, as ``resnet18``."""
    return _resnet("resnet50", spec, classes)


def _resnet(name: str, spec: ImageSpec, classes: int) -> nn.Module:
    network = timm.create_model(name, in_chans=spec.channels, num_classes=classes)
    stem = nn.Conv2d(spec.channels, 64, 3, padding=1, bias=False)
    # as timm initialises every other convolution
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    network.conv1, network.maxpool = stem, nn.Identity()
    return network


def train(
    recipe: Recipe,
    images: Images,
    classes: int,
    seed: int,
    device: torch.device,
    advance: Callable[[float], None] = lambda images: None,
    order: int | None = None,
    held_out: Images | None = None,
) -> nn.Module:
    """Train a classifier by its recipe: a fixed number of steps, and the last weights.

    Given held-out images, training goes the same way, and the weights are those of the epoch at
    whose end accuracy on these images was highest; the earliest of several such.

    Deterministic for a seed on one machine, whatever was computed before and on however many
    threads.

    Args:
        recipe: What to train and how.
        images: At least one; classes may be missing.
        classes: Number of classes.
        seed: Of initial weights, dropout, augmentation and the order of the minibatches.
        device: Where to compute.
        advance: Told the number of images of every step.
        order: Seed of the order of the minibatches, if it is to be another one.
        held_out: At least one image to select the epoch by. An epoch ends with the step in which
            the last of ``images`` has its turn; ``recipe.steps`` are those of one at least.

    Returns:
        The network on ``device``, in evaluation mode.

    Raises:
        ValueError: An epoch is to be selected, and the recipe averages weights over epochs.
    """
    if held_out is not None and recipe.average:
        raise ValueError(f"{recipe.id} averages its weights: no epoch of it can be selected")
    pixels, labels = images.pixels.to(device), images.labels.to(device)
    rng = torch.Generator(device).manual_seed(seed)
    with _reproducible(seed, device):
        network = recipe.network(images.spec, classes).to(device)
        network = network.to(memory_format=torch.channels_last)
        optimizer, schedule = _optimizer(recipe, network)
        average = ExponentialAverage(network, recipe.average) if recipe.average else None
        best = _BestEpoch(held_out, device) if held_out is not None else None
        order = seed if order is None else order
        minibatches = _minibatches(len(images), recipe.batch, recipe.steps, order)
        for step, index in enumerate(minibatches, 1):
            optimizer.zero_grad()
            for part in _parts(index.to(device).repeat(recipe.copies), PHYSICAL_BATCH):
                loss = functional.cross_entropy(
                    network(recipe.augmentation(from_pixels(pixels[part]), rng)),
                    labels[part],
                    label_smoothing=recipe.label_smoothing,
                )
                torch.autograd.backward(loss * (len(part) / (recipe.copies * recipe.batch)))
            optimizer.step()
            schedule.step()
            if average:
                average.update(network)
            # fewer images than a minibatch holds lie behind the end of the epoch
            if best and step * recipe.batch % len(images) < recipe.batch:
                best.update(network)
            advance(recipe.batch)
        if average:
            average.copy_to(network)
            update_bn((from_pixels(part) for part in _parts(pixels, PHYSICAL_BATCH)), network)
        if best:
            best.copy_to(network)
    return network.eval()


@torch.no_grad()
def logits(network: nn.Module, pixels: Tensor, device: torch.device) -> Tensor:
    """What a classifier makes of images.

    Args:
        network: On ``device``, in evaluation mode.
        pixels: ``(N, C, H, W)``, uint8.
        device: Where to compute.

    Returns:
        ``(N, classes)``, float32, on the CPU.
    """
    parts = _parts(pixels, PREDICTION_BATCH)
    return torch.cat([network(from_pixels(part.to(device))).cpu() for part in parts])


def predict(network: nn.Module, pixels: Tensor, device: torch.device) -> Tensor:
    """The class of the largest logit of each image: ``(N,)``, int64; otherwise as ``logits``."""
    return logits(network, pixels, device).argmax(1)


def accuracy(network: nn.Module, images: Images, device: torch.device) -> float:
    """Share of images whose largest logit is that of their label, in %."""
    correct = predict(network, images.pixels, device) == images.labels
    return 100 * int(correct.sum()) / len(images)


class _BestEpoch:
    """The weights of the epoch that is best on held-out images; of several the earliest.

    Args:
        held_out: At least one image.
        device: Where to compute.
    """

    def __init__(self, held_out: Images, device: torch.device) -> None:
        """Start before the first epoch."""
        self._held_out = held_out
        self._device = device
        self._accuracy = -1.0
        self._weights: dict[str, Tensor] = {}

    def update(self, network: nn.Module) -> None:
        """Measure an epoch, and keep its weights if it is better than all before."""
        reached = accuracy(network.eval(), self._held_out, self._device)
        network.train()
        if reached > self._accuracy:
            self._accuracy, self._weights = reached, copy.deepcopy(network.state_dict())

    def copy_to(self, network: nn.Module) -> None:
        """Overwrite a network's weights, and the statistics of its layers, by those kept."""
        network.load_state_dict(self._weights)


def _parts(rows: Tensor, size: int) -> Iterator[Tensor]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _minibatches(count: int, batch: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Indices of ``steps`` full minibatches: permutations of all images, one behind the other."""
    rng = torch.Generator().manual_seed(seed)
    waiting = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(waiting) < batch:
            waiting = torch.cat([waiting, torch.randperm(count, generator=rng)])
        yield waiting[:batch]
        waiting = waiting[batch:]


def _optimizer(
    recipe: Recipe, network: nn.Module
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    if recipe.adam:
        adam = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
        return adam, _dropping(recipe, adam)
    sgd = torch.optim.SGD(
        network.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.sgd.momentum,
        nesterov=recipe.sgd.nesterov,
        weight_decay=recipe.sgd.weight_decay,
    )
    match recipe.sgd.schedule:
        case "constant":
            return sgd, _dropping(recipe, sgd)
        case "cosine":
            return sgd, torch.optim.lr_scheduler.CosineAnnealingLR(sgd, recipe.steps)
        case "one-cycle":
            return sgd, torch.optim.lr_scheduler.OneCycleLR(
                sgd,
                max_lr=recipe.learning_rate,
                total_steps=recipe.steps,
                pct_start=0.25,
                cycle_momentum=False,
            )


def _dropping(
    recipe: Recipe, optimizer: torch.optim.Optimizer
) -> torch.optim.lr_scheduler.LRScheduler:
    steps = [round(share * recipe.steps) for share in recipe.drops]
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, steps, DROP)


@contextmanager
def _reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """Fix what the result of training would depend on by accident, and put it back.

    Initial weights and dropout know no generator but the global ones, which belong to nobody in
    particular: they are forked and seeded. On the CPU one thread is used, since the order of sums
    depends on the number of threads; networks this small gain little from a second one and lose
    threefold from waiting for it where the cores are busy.
    """
    cuda = [torch.cuda.current_device()] if device.type == "cuda" else []
    threads = torch.get_num_threads()
    with (
        torch.random.fork_rng(devices=cuda),
        torch.backends.cudnn.flags(enabled=True, deterministic=True),
    ):
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed(seed)
        else:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
