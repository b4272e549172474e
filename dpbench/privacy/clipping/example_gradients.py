"""Per-example gradients of one parameter, as far as clipping needs them.

Clipping needs the norm of every example's gradient and then a weighted sum. ``Stacked`` and
``Separate`` hold gradients; ``Ghost`` knows most norms without forming them, and computes the sum
by one re-weighted contraction. Norms and sums are float32 whatever the dtype of the layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

# A norm below this share of what it would be without cancellation is not taken from inner products:
# the squared norm is then below 2e-5 of the terms it is a sum of, which have about 7 digits.
CANCELLED = 0.004
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
    """Gradients that are not formed, but for examples whose norm would be lost in rounding.

    Attributes:
        norms: ``(B,)``, float32: their Euclidean norms.
        contract: Maps gradients of the layer's output, ``(b, ...)``, and the slice of the b
            examples they belong to, to the gradient of the parameter.
        gradient: Gradient of the layer's output, ``(B, ...)``, float32.
        formed: Gradients of those examples, by place in the batch.
    """

    norms: Tensor
    contract: Callable[[Tensor, slice], Tensor]
    gradient: Tensor
    formed: dict[int, Tensor]

    @classmethod
    def of(
        cls, products: Tensor, contract: Callable[[Tensor, slice], Tensor], gradient: Tensor
    ) -> Ghost:
        """Take the norms from the inner products of what each place adds to a gradient.

        The squared norm is the sum of all products. Where they cancel, as those of flat images do
        in front of a normalisation, rounding can leave any small number or none of it, and with it
        the example would escape clipping: there the gradient is formed, and clipped as it is.

        Args:
            products: ``(B, P, P)``, float32, for P places.
            contract: See the attributes.
            gradient: See the attributes.
        """
        squares = products.sum(dim=(1, 2))
        # norm if nothing cancelled, from the norms of what the places add
        largest = products.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt().sum(dim=1)
        norms, formed = squares.clamp(min=0).sqrt(), {}
        for i in (norms < CANCELLED * largest).nonzero().flatten().tolist():
            formed[i] = contract(gradient[i : i + 1], slice(i, i + 1)).float()
            norms[i] = formed[i].norm()
        return cls(norms, contract, gradient, formed)

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """Return ``sum_i factors[i] * gradient_i`` in float32."""
        ghosts = factors.clone()
        ghosts[list(self.formed)] = 0
        weights = ghosts.view(-1, *(1,) * (self.gradient.ndim - 1))
        total = self.contract(self.gradient * weights, slice(None))
        for i, each in self.formed.items():
            total += factors[i] * each
        return total
