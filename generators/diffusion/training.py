"""Public training of a denoiser: plain optimizer steps, no privacy mechanism."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dpbench.cores import map_on_cores
from dpbench.privacy.clipping import Objective, trainable
from dpbench.privacy.dpsgd import Learner
from dpbench.privacy.private_images import PrivateSetInfo
from dpbench.stages import Stage, Stateful
from dpbench.streams import Streams
from dpbench.types import Images

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
    learning_rate: Callable[[int], float] | None = None,
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
        learning_rate: At each step, from 0; None leaves the optimizer's.
    """
    device = next(learner.model.parameters()).device
    state: dict[str, Stateful] = {
        "model": learner.model,
        "optimizer": learner.optimizer,
        "average": learner.average,
    }
    for step in stage.steps(steps, state, per_step=batch_size * objective.multiplicity):
        source = images()
        choice = torch.randint(
            len(source), (batch_size,), generator=streams.public("public-data", name, step)
        )
        batch = source[choice]
        rng = streams.public("diffusion-noise", name, step, device=device)
        copies = objective.draw(batch.pixels.to(device), batch.labels.to(device), rng)
        set_gradients(learner.model, objective, copies)
        if learning_rate is not None:
            for group in learner.optimizer.param_groups:
                group["lr"] = learning_rate(step)
        learner.optimizer.step()
        learner.average.update(learner.model)


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


def initialised(build: type[nn.Module], *arguments: object, seed: int) -> nn.Module:
    """Build a module with its initial weights drawn from ``seed``.

    torch's layers initialise from the global generator only, so that is seeded and put back.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build(*arguments)


def copies_per_second(step: Callable[[int], None], full: int) -> float:
    """The speed of a training step.

    A few copies come first, to warm up; then a full batch only where that takes about a second.

    Args:
        step: Takes a step on a number of copies.
        full: Number of copies of a usual batch.
    """
    speed = 0.0
    for copies in (8, 8, full):
        if 0 < speed < full / 4:
            break
        started = time.perf_counter()
        step(copies)
        speed = copies / (time.perf_counter() - started)
    return speed


def blank_images(info: PrivateSetInfo, count: int) -> Images:
    """Black images of the first class, to time a step on."""
    return Images(
        torch.zeros(count, *info.spec.shape, dtype=torch.uint8),
        torch.zeros(count, dtype=torch.int64),
    )
