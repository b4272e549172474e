"""DP-SGD: sample, clip, add noise, step (Abadi et al. 2016, algorithm 1).

The loop takes sample rate, noise multiplier, clipping norm and number of steps from the event that
was accounted for, and from nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from dpbench.core.errors import UserError
from dpbench.core.images import Images
from dpbench.core.streams import Streams
from dpbench.parallel.cores import map_on_cores
from dpbench.parallel.ranks import ALONE, Ranks
from dpbench.privacy.clipping import Engine, Objective, engine, trainable
from dpbench.privacy.clipping.selection import Execution
from dpbench.privacy.draws import Copies, Draws, drawn_copies
from dpbench.privacy.events import DPSGDEvent
from dpbench.privacy.ledger import Allowance
from dpbench.privacy.sampling import poisson_sample
from dpbench.training.averaging import ExponentialAverage
from dpbench.training.loop import Stage, Stateful


@dataclass(frozen=True)
class Learner:
    """Everything that private training changes.

    Attributes:
        model: Network whose trainable parameters get the noisy gradients.
        optimizer: Optimizer of those parameters.
        average: Moving average of the weights, updated after every step; post-processing.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: ExponentialAverage


def train(
    images: Images,
    nominal_size: int,
    learner: Learner,
    objective: Objective,
    allowance: Allowance,
    streams: Streams,
    stage: Stage,
    note: Callable[[int], str],
    execution: Execution,
) -> None:
    """Run the DP-SGD steps of ``allowance.event``, resuming where ``stage`` stopped.

    Args:
        images: The private images.
        nominal_size: Public size N of the private set. Sums are divided by ``q * N``, because a
            release must not depend on the realised batch size.
        learner: Trained in place.
        objective: Training loss.
        allowance: Permission for the releases of a ``DPSGDEvent``.
        streams: Source of the streams ``poisson``, ``private-copies`` and ``dp-noise``.
        stage: Loop that resumes, reports and checkpoints; its ranks share the work of each step.
        note: Returns the text to show after a number of steps.
        execution: Engine and physical batch size.
    """
    event = allowance.event
    assert isinstance(event, DPSGDEvent)
    parameters = trainable(learner.model)
    batch_size = event.sample_rate * nominal_size
    device = next(iter(parameters.values())).device
    state: dict[str, Stateful] = {
        "model": learner.model,
        "optimizer": learner.optimizer,
        "average": learner.average,
        "allowance": allowance,
    }
    per_step = round(batch_size) * objective.multiplicity
    clipped = engine(execution.engine)
    buffers = {name: buffer.clone() for name, buffer in learner.model.named_buffers()}
    for step in stage.steps(event.steps, state, per_step=per_step, note=note, counted=True):
        allowance.release(step)
        batch = poisson_sample(
            streams.secret("poisson", event.purpose, step), len(images), event.sample_rate
        )
        draws = partial(streams.secret_torch, "private-copies", event.purpose, step, device=device)
        total = gradient_sum(
            learner.model,
            objective,
            images,
            batch,
            clipping_norm=event.clipping_norm,
            draws=draws,
            clipped=clipped,
            size=execution.physical_batch,
            ranks=stage.ranks,
        )
        _check_buffers(learner.model, buffers)
        noise = gaussian_noise(total, streams, event.purpose, step)
        scale = event.noise_multiplier * event.clipping_norm
        for name, parameter in parameters.items():
            released = total[name] + scale * noise[name]
            parameter.grad = (released / batch_size).to(parameter.dtype)
        learner.optimizer.step()
        learner.average.update(learner.model)


def _check_buffers(model: nn.Module, before: Mapping[str, Tensor]) -> None:
    """Check that a step has left the model's buffers alone: no noise covers what they keep.

    Raises:
        UserError: A buffer has changed; it gets its old values back.
    """
    for name, buffer in model.named_buffers():
        if not torch.equal(buffer, before[name]):
            buffer.copy_(before[name])
            raise UserError(
                f"buffer {name!r} of the model changes during a private step, so it would keep "
                "what it saw of private images without noise: make it constant"
            )


def gradient_sum(
    model: nn.Module,
    objective: Objective,
    images: Images,
    batch: Tensor,
    *,
    clipping_norm: float,
    draws: Draws,
    clipped: Engine,
    size: int,
    ranks: Ranks = ALONE,
) -> dict[str, Tensor]:
    """Sum the clipped gradients of a logical batch, one physical batch at a time.

    If the draws of the other examples are held fixed, adding or removing one example changes the
    sum by at most ``clipping_norm`` in Euclidean norm.

    Args:
        model: Network to differentiate.
        objective: Training loss.
        images: Images that the batch indexes.
        batch: ``(B,)``, int64 indices; B may be 0.
        clipping_norm: C, above 0.
        draws: Generators of the objective's draws, as ``drawn_copies`` takes them.
        clipped: Engine that sums the clipped gradients of a physical batch.
        size: Number of examples in a physical batch, at least 1.
        ranks: Processes that were given the same batch and draws; each sums a part of the batch.

    Returns:
        For each trainable parameter a float32 tensor of its shape: the sum over the whole batch,
        the same on all ranks.
    """
    total = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in trainable(model).items()}
    device = next(iter(total.values())).device
    copies = drawn_copies(objective, images, batch, draws, device)
    share = ranks.share(len(batch))

    def physical_batches() -> Iterator[Copies]:
        for start in share[::size]:
            yield copies(start, min(start + size, share.stop))

    def sum_of_one(copies: Copies) -> dict[str, Tensor]:
        return clipped(model, objective, copies, clipping_norm)

    for partial_sum in map_on_cores(sum_of_one, physical_batches(), device):
        # by name: an engine may return another order, and tensors of equal shape would be mixed up
        torch._foreach_add_(list(total.values()), [partial_sum[name] for name in total])
    ranks.add_up(list(total.values()))
    return total


def gaussian_noise(
    like: dict[str, Tensor], streams: Streams, purpose: str, step: int
) -> dict[str, Tensor]:
    """Standard normal float32 noise in the shapes of ``like``, new for each purpose and step."""
    rng = streams.secret("dp-noise", purpose, step)
    size = sum(part.numel() for part in like.values())
    flat = torch.from_numpy(rng.standard_normal(size, dtype="float32"))
    parts = torch.split(flat, [part.numel() for part in like.values()])
    return {
        name: noise.view(part.shape).to(part.device)
        for (name, part), noise in zip(like.items(), parts, strict=True)
    }
