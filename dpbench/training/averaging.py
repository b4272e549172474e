"""Exponential moving average of a network's weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class ExponentialAverage:
    """Average of weights with decay ``min(decay, (1 + n) / (10 + n))`` at the n-th update.

    The warm-up is that of the DPDM code; without it a decay of 0.9999 hardly moves in 200 steps.

    Args:
        model: Network whose weights are averaged.
        decay: Final decay, in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start at the current weights."""
        self._decay = decay
        self._updates = 0
        self._average = [p.detach().clone() for p in model.parameters()]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the current weights."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        torch._foreach_lerp_(self._average, list(model.parameters()), 1 - decay)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Overwrite the weights of ``model`` with the average."""
        for parameter, average in zip(model.parameters(), self._average, strict=True):
            parameter.copy_(average)

    def state_dict(self) -> dict[str, Any]:
        """The number of updates and the averaged weights."""
        return {"updates": self._updates, "average": self._average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""
        self._updates = int(state["updates"])
        for average, saved in zip(self._average, state["average"], strict=True):
            average.copy_(saved)
