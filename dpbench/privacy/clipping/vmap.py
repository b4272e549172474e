"""Per-example gradients by ``torch.func.vmap``: one vectorised pass over a physical batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from dpbench.privacy.clipping import Objective, clip_factors, trainable, zero_rows


def clipped_sum(
    model: nn.Module,
    objective: Objective,
    copies: tuple[Tensor, ...],
    clipping_norm: float,
) -> dict[str, Tensor]:
    """The sum of clipped per-example gradients over one physical batch.

    Args:
        model: Any module that treats examples independently.
        objective: Gives the loss of each example from its copies.
        copies: Tensors of shape ``(B, K, ...)``, as drawn by the objective; B at least 1.
        clipping_norm: C, above 0.

    Returns:
        For each trainable parameter, a float32 tensor of its shape. Memory is B gradients.
    """
    parameters = {name: p.detach() for name, p in trainable(model).items()}

    def loss_of_one(weights: dict[str, Tensor], *copy: Tensor) -> Tensor:
        def predict(*inputs: Any) -> Tensor:
            result: Tensor = functional_call(model, weights, inputs)
            return result

        return objective.loss(predict, *(part.unsqueeze(0) for part in copy)).squeeze(0)

    per_example = vmap(grad(loss_of_one), in_dims=(None, *(0 for _ in copies)))
    gradients: dict[str, Tensor] = per_example(parameters, *copies)
    gradients = {name: g.float() for name, g in gradients.items()}
    norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients.values()]).norm(dim=0)
    factors, finite = clip_factors(norms, clipping_norm), norms.isfinite()
    if not finite.all():
        gradients = {name: zero_rows(g, finite) for name, g in gradients.items()}
    return {name: (factors @ g.flatten(1)).view(g.shape[1:]) for name, g in gradients.items()}
