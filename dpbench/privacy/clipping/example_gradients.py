"""Per-example gradients of one parameter, as far as clipping needs them.

Clipping needs the norm of every example's gradient and then a weighted sum. ``Stacked`` and
``Separate`` hold gradients; ``Ghost`` knows their norms without forming them, and computes the sum
by one re-weighted contraction. Norms and sums are float32 whatever the dtype of the layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

# Maps the ``id`` of each trainable parameter to its name.
ParameterNames = dict[int, str]


class ExampleGradients(Protocol):
    """The gradients of one parameter for each of B examples.

    Attributes:
        norms: ``(B,)``, float32: their Euclidean norms.
    """

    norms: Tensor

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """Return ``sum_i factors[i] * gradient_i`` in float32; ``factors`` is ``(B,)``."""


class Stacked:
    """Gradients stacked in one tensor ``(B, *shape)``."""

    def __init__(self, rows: Tensor) -> None:
        """Convert the gradients to float32 and take their norms."""
        self._rows = rows.float()
        self.norms = self._rows.flatten(1).norm(dim=1)

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """Return ``sum_i factors[i] * gradient_i`` in float32."""
        return (factors @ self._rows.flatten(1)).view(self._rows.shape[1:])


class Separate:
    """Gradients in separate tensors, because stacking them would cost a copy."""

    def __init__(self, gradients: Sequence[Tensor]) -> None:
        """Take the norms of the gradients."""
        self._gradients = gradients
        self.norms = torch.stack(
            [torch.linalg.vector_norm(each, dtype=torch.float32) for each in gradients]
        )

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """Return ``sum_i factors[i] * gradient_i`` in float32."""
        total = torch.zeros_like(self._gradients[0], dtype=torch.float32)
        for factor, each in zip(factors.tolist(), self._gradients, strict=True):
            total.add_(each, alpha=factor)
        return total


@dataclass
class Ghost:
    """Gradients that are never formed.

    Attributes:
        norms: ``(B,)``, float32: their Euclidean norms.
        contract: Maps the gradient of the layer's output, with the part of each example times its
            factor, to the gradient of the parameter.
        gradient: Gradient of the layer's output, ``(B, ...)``, float32.
    """

    norms: Tensor
    contract: Callable[[Tensor], Tensor]
    gradient: Tensor

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """Return ``sum_i factors[i] * gradient_i`` in float32."""
        weights = factors.view(-1, *(1,) * (self.gradient.ndim - 1))
        return self.contract(self.gradient * weights)
