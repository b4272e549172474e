"""The Opacus engine: per-example gradients by Opacus' hooks, an independent implementation.

Opacus materialises one gradient for each *row* that goes through the network, hence B * K. They are
added up over the K copies before clipping, as in the other engines.
"""

from __future__ import annotations

import copy

import torch
from opacus import GradSampleModule
from torch import Tensor, nn

from dpbench.privacy.clipping import Objective, clip_and_sum, of_examples, trainable


def clipped_sum(
    model: nn.Module,
    objective: Objective,
    copies: tuple[Tensor, ...],
    clipping_norm: float,
) -> dict[str, Tensor]:
    """Sum clipped per-example gradients, as an ``Engine`` does.

    Works for the layers that Opacus supports. Holds B * K gradients in memory.
    """
    # a copy, because Opacus' hooks and attributes stay on the module and serve one thread only
    hooked = GradSampleModule(copy.deepcopy(model), loss_reduction="sum")
    torch.autograd.backward(objective.loss(hooked, *copies).sum())
    rows = {}
    for name, parameter in trainable(hooked._module).items():
        per_row: Tensor = parameter.grad_sample  # type: ignore[attr-defined]
        rows[name] = of_examples(per_row, len(copies[0])).sum(dim=1, dtype=torch.float32)
    return clip_and_sum(rows, clipping_norm)
