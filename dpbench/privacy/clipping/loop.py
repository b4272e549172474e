"""The loop engine: plain autograd, one example after another; the oracle of other engines."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dpbench.privacy.clipping import Objective, clip_and_sum, trainable


def clipped_sum(
    model: nn.Module,
    objective: Objective,
    copies: tuple[Tensor, ...],
    clipping_norm: float,
) -> dict[str, Tensor]:
    """Sum clipped per-example gradients, as an ``Engine`` does.

    Works for every model. Holds two gradients in memory.
    """
    parameters = trainable(model)
    total = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}
    for one in zip(*(torch.split(part, 1) for part in copies), strict=True):
        gradients = torch.autograd.grad(
            objective.loss(model, *one).sum(), list(parameters.values()), materialize_grads=True
        )
        rows = {name: g.float()[None] for name, g in zip(parameters, gradients, strict=True)}
        clipped = clip_and_sum(rows, clipping_norm)
        torch._foreach_add_(list(total.values()), list(clipped.values()))
    return total
