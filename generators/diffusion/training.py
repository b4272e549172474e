"""Public training of a denoiser: plain optimizer steps, no privacy mechanism."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dpbench.api.sources import PublicSource
from dpbench.core.images import Images
from dpbench.core.progress import Progress
from dpbench.core.streams import Streams
from dpbench.parallel.cores import map_on_cores
from dpbench.privacy.clipping import Objective, trainable
from dpbench.privacy.dpsgd import Learner
from dpbench.privacy.mechanisms import PrivateSetInfo
from dpbench.privacy.throughput import blank_images, examples_per_second
from dpbench.training.loop import Stage, Stateful
from dpbench.training.pretraining import Pretraining

PIECES = 2


def train_public(
    images: Callable[[], Images],
    learner: Learner,
    objective: Objective,
    steps: int,
    batch_size: int,
    streams: Streams,
    name: str,
    stage: Stage,
    warmup: Callable[[int], float] | None = None,
) -> None:
    """Minimise the objective on images that are no secret.

    Args:
        images: Gives public images; called only if there are steps to do, then once a step.
        learner: What is trained, in place.
        objective: Loss and multiplicity.
        steps: Optimizer steps.
        batch_size: Images in a step, drawn with replacement.
        streams: ``public-data`` and ``diffusion-noise``.
        name: Names the stage's random streams.
        stage: Resumes, reports and checkpoints.
        warmup: Factor of the learning rates at each step, from 0; None leaves them as they are.
    """
    device = next(learner.model.parameters()).device
    state: dict[str, Stateful] = {
        "model": learner.model,
        "optimizer": learner.optimizer,
        "average": learner.average,
    }
    rates = [group["lr"] for group in learner.optimizer.param_groups]  # before any are resumed
    for step in stage.steps(steps, state, per_step=batch_size * objective.multiplicity):
        source = images()
        choice = torch.randint(
            len(source), (batch_size,), generator=streams.public("public-data", name, step)
        )
        batch = source[choice]
        rng = streams.public("diffusion-noise", name, step, device=device)
        copies = objective.draw(batch.pixels.to(device), batch.labels.to(device), rng)
        set_gradients(learner.model, objective, copies)
        if warmup is not None:
            for group, rate in zip(learner.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * warmup(step)
        learner.optimizer.step()
        learner.average.update(learner.model)


def train_public_once(
    pretraining: Pretraining,
    images: Callable[[], Images],
    learner: Learner,
    objective: Objective,
    steps: int,
    batch_size: int,
    name: str,
    warmup: Callable[[int], float] | None = None,
) -> None:
    """Take the weights that the same training left before, or train and keep the averaged ones.

    Args:
        pretraining: Of the recipe that tells all that these weights depend on.
        images: As for ``train_public``.
        learner: As for ``train_public``.
        objective: As for ``train_public``.
        steps: As for ``train_public``.
        batch_size: As for ``train_public``.
        name: As for ``train_public``.
        warmup: As for ``train_public``.
    """
    if pretraining.load(learner.model):
        return
    train_public(
        *(images, learner, objective, steps, batch_size),
        *(pretraining.streams, name, pretraining.stage, warmup),
    )
    learner.average.copy_to(learner.model)
    pretraining.save(learner.model)


def opened_once(
    source: PublicSource,
    count: int,
    classes: int,
    labelled: bool,
    streams: Streams,
    progress: Progress,
) -> Callable[[], Images]:
    """Public images for ``train_public``: opened when the first step asks, never on a resume.

    Args:
        source: Of the images.
        count: How many of them, at most.
        classes: Number of classes.
        labelled: Whether their labels are kept; uniformly random ones take their place otherwise.
        streams: ``public-data``.
        progress: Who is told.
    """

    @functools.cache
    def images() -> Images:
        opened = source.images(count, progress)
        if labelled:
            return opened
        rng = streams.public("public-data", "labels")
        return Images(opened.pixels, torch.randint(classes, (len(opened),), generator=rng))

    return images


def set_gradients(model: nn.Module, objective: Objective, copies: tuple[Tensor, ...]) -> None:
    """Set the gradients of the mean loss, computed in pieces on all cores.

    Args:
        model: What to differentiate.
        objective: Gives the loss of each example from its copies.
        copies: Tensors of shape ``(B, K, ...)``.
    """
    parameters = list(trainable(model).values())
    count, device = len(copies[0]), copies[0].device
    # the number of pieces is fixed, so that results do not depend on the machine's cores
    pieces = zip(*(torch.chunk(part, PIECES) for part in copies), strict=True)

    def gradients_of(piece: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(objective.loss(model, *piece).sum() / count, parameters)

    total = [torch.zeros_like(parameter) for parameter in parameters]
    for gradients in map_on_cores(gradients_of, pieces, device):
        torch._foreach_add_(total, gradients)
    for parameter, gradient in zip(parameters, total, strict=True):
        parameter.grad = gradient


def public_speed(
    model: nn.Module, objective: Objective, info: PrivateSetInfo, batch_size: int
) -> float:
    """Gradient evaluations per second of the public step, on black images.

    Args:
        model: On the device to compute on; its gradients are set.
        objective: Loss; its multiplicity is 1.
        info: Gives the shape of the images.
        batch_size: Images of a step.
    """
    images = blank_images(info, batch_size)
    device = next(model.parameters()).device
    rng = torch.Generator(device).manual_seed(0)

    def step(copies: int) -> None:
        batch = images[:copies]
        drawn = objective.draw(batch.pixels.to(device), batch.labels.to(device), rng)
        set_gradients(model, objective, drawn)
        next(model.parameters()).sum().item()  # waits for the device

    return examples_per_second(step, len(images))
