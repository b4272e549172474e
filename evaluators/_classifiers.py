"""Classifiers of fixed recipe: networks, training of a fixed number of steps, accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from dpbench.pixels import from_pixels
from dpbench.types import Images, ImageSpec

BATCH = 128
# in evaluation mode the size of a batch changes speed only
PREDICTION_BATCH = 1000


@dataclass(frozen=True)
class Recipe:
    """How to train one classifier: everything but the images and the seed.

    Attributes:
        id: Names network and schedule in records, e.g. ``cnn16-32-64/sgd600``.
        network: Builds it for images of a shape and a number of classes; its input is
            ``(B, C, H, W)``, float32 in [-1, 1], its output ``(B, classes)`` logits.
        steps: Optimizer steps, of ``BATCH`` images each.
        adam: Adam at ``learning_rate`` throughout; otherwise SGD with Nesterov momentum .9,
            weight decay 5e-4 and a one-cycle schedule that peaks at ``learning_rate``.
        learning_rate: See ``adam``.
        label_smoothing: Of the cross-entropy.
        smallest_side: Images with a shorter side than this many pixels do not fit the network.
    """

    id: str
    network: Callable[[ImageSpec, int], nn.Module]
    steps: int
    adam: bool
    learning_rate: float
    label_smoothing: float
    smallest_side: int = 1


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
    network = timm.create_model("resnet18", in_chans=spec.channels, num_classes=classes)
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
) -> nn.Module:
    """Train a classifier by its recipe: a fixed number of steps, and the last weights.

    Deterministic for a seed on one machine, whatever was computed before and on however many
    threads.

    Args:
        recipe: What to train and how.
        images: At least one; classes may be missing.
        classes: Number of classes.
        seed: Of initial weights, dropout and the order of the minibatches.
        device: Where to compute.
        advance: Told the number of images of every step.

    Returns:
        The network on ``device``, in evaluation mode.
    """
    pixels, labels = images.pixels.to(device), images.labels.to(device)
    with _reproducible(seed, device):
        network = recipe.network(images.spec, classes).to(device)
        network = network.to(memory_format=torch.channels_last)
        optimizer, schedule = _optimizer(recipe, network)
        for index in _minibatches(len(images), recipe.steps, seed):
            index = index.to(device)
            loss = functional.cross_entropy(
                network(from_pixels(pixels[index])),
                labels[index],
                label_smoothing=recipe.label_smoothing,
            )
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            advance(BATCH)
    return network.eval()


@torch.no_grad()
def predict(network: nn.Module, pixels: Tensor, device: torch.device) -> Tensor:
    """The class of the largest logit of each image.

    Args:
        network: On ``device``, in evaluation mode.
        pixels: ``(N, C, H, W)``, uint8.
        device: Where to compute.

    Returns:
        ``(N,)``, int64, on the CPU.
    """
    classes = [
        network(from_pixels(pixels[start : start + PREDICTION_BATCH].to(device))).argmax(1).cpu()
        for start in range(0, len(pixels), PREDICTION_BATCH)
    ]
    return torch.cat(classes)


def accuracy(network: nn.Module, images: Images, device: torch.device) -> float:
    """Share of images whose largest logit is that of their label, in %."""
    correct = predict(network, images.pixels, device) == images.labels
    return 100 * int(correct.sum()) / len(images)


def _minibatches(count: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Indices of ``steps`` full minibatches: permutations of all images, one behind the other."""
    rng = torch.Generator().manual_seed(seed)
    waiting = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(waiting) < BATCH:
            waiting = torch.cat([waiting, torch.randperm(count, generator=rng)])
        yield waiting[:BATCH]
        waiting = waiting[BATCH:]


def _optimizer(
    recipe: Recipe, network: nn.Module
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    if recipe.adam:
        adam = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
        return adam, torch.optim.lr_scheduler.ConstantLR(adam, factor=1)
    sgd = torch.optim.SGD(
        network.parameters(),
        lr=recipe.learning_rate,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
    )
    return sgd, torch.optim.lr_scheduler.OneCycleLR(
        sgd,
        max_lr=recipe.learning_rate,
        total_steps=recipe.steps,
        pct_start=0.25,
        cycle_momentum=False,
    )


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
