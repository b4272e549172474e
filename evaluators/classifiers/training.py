"""Training of classifiers by a recipe, for a fixed number of steps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import update_bn

from dpbench.core.images import Images
from dpbench.core.pixels import from_pixels
from dpbench.training.averaging import ExponentialAverage

from .prediction import accuracy
from .recipe import DROP, Recipe

# larger minibatches go through the network in parts, to bound memory: batch normalisation then
# takes the statistics of each part
PHYSICAL_BATCH = 1024


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
    """Train a classifier for the recipe's number of steps and return the last weights.

    With held-out images, training is the same, but the weights are those of the epoch with the
    highest accuracy on these images at its end, the earliest of several.

    The result is deterministic for a seed on one machine, whatever was computed before and however
    many threads there are.

    Args:
        recipe: How to train the classifier.
        images: Training images, at least one; classes may be missing.
        classes: Number of classes.
        seed: Seed of initial weights, dropout, augmentation and the order of minibatches.
        device: Device to compute on.
        advance: Receives the number of images of every step.
        order: Seed of the order of minibatches; None to use ``seed``.
        held_out: Images to select the epoch by, at least one; None to keep the last weights. An
            epoch ends with the step that takes the last of ``images``; ``recipe.steps`` must cover
            one epoch.

    Returns:
        The network on ``device``, in evaluation mode.

    Raises:
        ValueError: An epoch is to be selected, but the recipe averages weights over epochs.
    """
    if held_out is not None and recipe.average:
        raise ValueError(f"{recipe.id} averages its weights: no epoch of it can be selected")
    pixels, labels = images.pixels.to(device), images.labels.to(device)
    rng = torch.Generator(device).manual_seed(seed)
    with _reproducible(seed, device):
        network = recipe.network(images.spec, classes).to(device)
        network = network.to(memory_format=torch.channels_last)
        optimizer, schedule = make_optimizer(recipe, network)
        average = ExponentialAverage(network, recipe.average) if recipe.average else None
        best = _BestEpoch(held_out, device) if held_out is not None else None
        order = seed if order is None else order
        minibatches = _minibatches(len(images), recipe.batch, recipe.steps, order)
        for step, index in enumerate(minibatches, 1):
            optimizer.zero_grad()
            for part in torch.split(index.to(device).repeat(recipe.copies), PHYSICAL_BATCH):
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
            # the epoch ended within this minibatch
            if best and step * recipe.batch % len(images) < recipe.batch:
                best.update(network)
            advance(recipe.batch)
        if average:
            average.copy_to(network)
            update_bn((from_pixels(part) for part in torch.split(pixels, PHYSICAL_BATCH)), network)
        if best:
            best.copy_to(network)
    return network.eval()


class _BestEpoch:
    """Keeps the weights of the epoch that is best on held-out images, the earliest of several.

    Args:
        held_out: At least one image.
        device: Device to compute on.
    """

    def __init__(self, held_out: Images, device: torch.device) -> None:
        """Start before the first epoch."""
        self._held_out = held_out
        self._device = device
        self._accuracy = -1.0
        self._weights: dict[str, Tensor] = {}

    def update(self, network: nn.Module) -> None:
        """Measure an epoch and keep its weights if it is better than all before."""
        reached = accuracy(network.eval(), self._held_out, self._device)
        network.train()
        if reached > self._accuracy:
            self._accuracy, self._weights = reached, copy.deepcopy(network.state_dict())

    def copy_to(self, network: nn.Module) -> None:
        """Load the kept weights and batch statistics into a network."""
        network.load_state_dict(self._weights)


def _minibatches(count: int, batch: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Yield indices of ``steps`` full minibatches from successive permutations of all images."""
    rng = torch.Generator().manual_seed(seed)
    waiting = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(waiting) < batch:
            waiting = torch.cat([waiting, torch.randperm(count, generator=rng)])
        yield waiting[:batch]
        waiting = waiting[batch:]


def make_optimizer(
    recipe: Recipe, network: nn.Module
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return a recipe's optimizer of a network and the schedule of its learning rate."""
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
    """Seed torch's global generators and use deterministic kernels inside the block; restore both.

    Initial weights and dropout can only draw from the global generators, so these are forked and
    seeded. On the CPU one thread is used, since the order of sums depends on the number of threads;
    networks this small gain little from a second thread and take three times as long if it has to
    wait for a busy core.
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
