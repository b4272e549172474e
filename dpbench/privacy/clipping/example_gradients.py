"""Per-example gradients of one parameter, as much of them as clipping needs.

Clipping needs the norm of every example's gradient, and then their weighted sum. ``Rows`` and
``Separate`` hold gradients that were formed; ``Ghost`` has their norms without them, and finds the
sum by one re-weighted contraction. Norms and sums are float32 whatever the layer computed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

# parameters by id, for those that are trained
Names = dict[int, str]


class Part(Protocol):
    """The gradients of one parameter, one for each of B examples.

    Attributes:
        norms: ``(B,)``, float32.
    """

    norms: Tensor

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """``sum_i factors[i] * gradient_i``, float32; ``factors`` is ``(B,)``."""


class Rows:
    """Gradients that were formed, as one tensor ``(B, *shape)``."""

    def __init__(self, rows: Tensor) -> None:
        """Keep them as float32."""
        self._rows = rows.float()
        self.norms = self._rows.flatten(1).norm(dim=1)

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """See ``Part``."""
        return (factors @ self._rows.flatten(1)).view(self._rows.shape[1:])


class Separate:
    """Gradients that were formed one by one: stacking them would cost a copy."""

    def __init__(self, gradients: Sequence[Tensor]) -> None:
        """Take their norms."""
        self._gradients = gradients
        self.norms = torch.stack(
            [torch.linalg.vector_norm(each, dtype=torch.float32) for each in gradients]
        )

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """See ``Part``."""
        total = torch.zeros_like(self._gradients[0], dtype=torch.float32)
        for factor, each in zip(factors.tolist(), self._gradients, strict=True):
            total.add_(each, alpha=factor)
        return total


@dataclass
class Ghost:
    """Gradients that were never formed.

    Attributes:
        norms: See ``Part``.
        contract: Maps the gradient of the layer's output, each example's times its factor, to the
            parameter's gradient.
        gradient: Of the layer's output, ``(B, ...)``, float32.
    """

    norms: Tensor
    contract: Callable[[Tensor], Tensor]
    gradient: Tensor

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """See ``Part``."""
        weights = factors.view(-1, *(1,) * (self.gradient.ndim - 1))
        return self.contract(self.gradient * weights)
