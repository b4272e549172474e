"""The vmap engine: per-example gradients in one vectorised pass by ``torch.func.vmap``."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from dpbench.privacy.clipping import Objective, clip_and_sum, trainable


def clipped_sum(
    model: nn.Module,
    objective: Objective,
    copies: tuple[Tensor, ...],
    clipping_norm: float,
) -> dict[str, Tensor]:
    """Sum clipped per-example gradients, as an ``Engine`` does.

    Works for every model whose operators can be vectorised. Holds B gradients in memory.
    """
    parameters = {name: p.detach() for name, p in trainable(model).items()}
    # functional_call swaps weights into the module while it runs, so each thread needs a module of
    # its own; the memo prevents the weights themselves from being copied
    module = copy.deepcopy(model, {id(p): p for p in model.parameters()})

    def loss_of_one(weights: dict[str, Tensor], *copy: Tensor) -> Tensor:
        def predict(*inputs: Any) -> Tensor:
            result: Tensor = functional_call(module, weights, inputs)
            return result

        return objective.loss(predict, *(part.unsqueeze(0) for part in copy)).squeeze(0)

    per_example = vmap(grad(loss_of_one), in_dims=(None, *(0 for _ in copies)))
    gradients: dict[str, Tensor] = per_example(parameters, *copies)
    return clip_and_sum({name: g.float() for name, g in gradients.items()}, clipping_norm)
