"""Public training of a denoiser: plain optimizer steps, no privacy mechanism."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from dpbench.privacy.clipping import Objective
from dpbench.privacy.dpsgd import Learner
from dpbench.stages import Stage, Stateful
from dpbench.streams import Streams
from dpbench.types import Images


def train_public(
    images: Callable[[], Images],
    learner: Learner,
    objective: Objective,
    steps: int,
    batch_size: int,
    streams: Streams,
    name: str,
    stage: Stage,
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
        learner.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(objective.loss(learner.model, *copies).mean())
        learner.optimizer.step()
        learner.average.update(learner.model)


def initialised(build: type[nn.Module], *arguments: object, seed: int) -> nn.Module:
    """Build a module with its initial weights drawn from ``seed``.

    torch's layers initialise from the global generator only, so that is seeded and put back.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build(*arguments)
