"""The layers that the folded engine supports, each with its per-example weight gradients.

A ``Layer`` keeps the input of one application of a layer to all copies. Given the gradient of its
output, it yields the ``ExampleGradients`` of each of its parameters.

Rows of a layer's input and output are copies in the order of ``as_rows``: B examples with K copies
each are K * B rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 (its customary name)
from torch import Tensor

from dpbench.core.errors import UserError
from dpbench.privacy.clipping import of_examples
from dpbench.privacy.clipping.convolution import Convolution
from dpbench.privacy.clipping.example_gradients import (
    ExampleGradients,
    Ghost,
    ParameterNames,
    Stacked,
)


class Layer(Protocol):
    """One application of a layer, constructed with the arguments of its torch function.

    Attributes:
        inputs: Input of the layer; its first dimension counts copies.
    """

    inputs: Tensor

    def weight_gradients(
        self, gradient: Tensor, examples: int
    ) -> Iterator[tuple[str, ExampleGradients]]:
        """Yield the name and the per-example gradients of each trainable parameter.

        Args:
            gradient: Gradient of the loss with respect to the output, of the output's shape.
            examples: Number of examples B.
        """


class Affine:
    """``linear``, applied at any number of positions."""

    def __init__(
        self,
        names: ParameterNames,
        input: Tensor,  # noqa: A002 (torch calls it so)
        weight: Tensor,
        bias: Tensor | None = None,
    ) -> None:
        """Keep the input."""
        self.inputs = input.detach()
        self._names = names.get(id(weight)), names.get(id(bias))

    def weight_gradients(
        self, gradient: Tensor, examples: int
    ) -> Iterator[tuple[str, ExampleGradients]]:
        """Yield the per-example gradients of the trainable parameters."""
        weight, bias = self._names
        x, g = (
            of_examples(each.float(), examples).reshape(examples, -1, each.shape[-1])
            for each in (self.inputs, gradient)
        )
        if bias is not None:
            yield bias, Stacked(g.sum(dim=1))
        if weight is None:
            return
        if 2 * x.shape[1] ** 2 <= x.shape[2] * g.shape[2]:

            def contract(weighted: Tensor, of: slice) -> Tensor:
                return weighted.flatten(0, -2).mT @ x[of].flatten(0, -2)

            yield weight, Ghost.of((x @ x.mT) * (g @ g.mT), contract, g)
        else:
            yield weight, Stacked(g.mT @ x)


class Lookup:
    """``embedding``."""

    def __init__(
        self,
        names: ParameterNames,
        input: Tensor,  # noqa: A002 (torch calls it so)
        weight: Tensor,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> None:
        """Keep the input."""
        if max_norm is not None or scale_grad_by_freq:
            raise UserError("an embedding's max_norm and scale_grad_by_freq mix examples")
        self.inputs = input
        self._name, self._shape, self._padding = names[id(weight)], weight.shape, padding_idx

    def weight_gradients(
        self, gradient: Tensor, examples: int
    ) -> Iterator[tuple[str, ExampleGradients]]:
        """Yield the per-example gradients of the trainable parameters."""
        index = of_examples(self.inputs, examples).reshape(examples, -1)
        g = of_examples(gradient.float(), examples).reshape(*index.shape, -1)
        if self._padding is not None:
            g = g.masked_fill((index == self._padding)[:, :, None], 0)
        same = index[:, :, None] == index[:, None, :]

        def contract(weighted: Tensor, of: slice) -> Tensor:
            total = torch.zeros(self._shape, device=weighted.device)
            return total.index_add_(0, index[of].flatten(), weighted.flatten(0, 1))

        yield self._name, Ghost.of(torch.where(same, g @ g.mT, 0), contract, g)


class _Normalisation:
    """A normalisation with a scale and an offset."""

    def __init__(
        self,
        names: ParameterNames,
        input: Tensor,  # noqa: A002 (torch calls it so)
        over: Any,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
    ) -> None:
        """Keep the input; ``over`` is the number of groups, or the shape normalised over."""
        self.inputs = input.detach()
        self._names = names.get(id(weight)), names.get(id(bias))
        self._over, self._eps = over, eps

    def _example_gradients(
        self, scale: Tensor, offset: Tensor
    ) -> Iterator[tuple[str, ExampleGradients]]:
        """Yield the per-example gradients of scale and offset that are trainable."""
        for name, rows in zip(self._names, (scale, offset), strict=True):
            if name is not None:
                yield name, Stacked(rows)


class GroupNormalisation(_Normalisation):
    """``group_norm``."""

    def weight_gradients(
        self, gradient: Tensor, examples: int
    ) -> Iterator[tuple[str, ExampleGradients]]:
        """Yield the per-example gradients of the trainable parameters."""
        rows, channels = self.inputs.shape[:2]
        places = self.inputs[0, 0].numel()
        _, mean, deviation = torch.native_group_norm(
            self.inputs, None, None, rows, channels, places, self._over, self._eps
        )
        # with the examples as additional channels, the layer's own backward pass adds up the copies
        copies, wide = rows // examples, examples * channels
        _, scale, offset = torch.ops.aten.native_group_norm_backward(
            gradient.reshape(copies, wide, places),
            self.inputs.reshape(copies, wide, places),
            mean.view(copies, -1),
            deviation.view(copies, -1),
            gradient.new_empty(wide),  # only its shape matters
            copies,
            wide,
            places,
            examples * self._over,
            (False, True, True),
        )
        yield from self._example_gradients(
            scale.view(examples, channels), offset.view(examples, channels)
        )


class LayerNormalisation(_Normalisation):
    """``layer_norm``."""

    def weight_gradients(
        self, gradient: Tensor, examples: int
    ) -> Iterator[tuple[str, ExampleGradients]]:
        """Yield the per-example gradients of the trainable parameters."""
        over = list(self._over)
        normalised = F.layer_norm(self.inputs.float(), over, eps=self._eps)
        scale, offset = (
            of_examples(each.reshape(len(each), -1, *over).sum(dim=1), examples).sum(dim=1)
            for each in (gradient.float() * normalised, gradient.float())
        )
        yield from self._example_gradients(scale, offset)


LAYERS: dict[Callable[..., Any], Callable[..., Layer]] = {
    F.conv2d: Convolution,
    F.linear: Affine,
    F.embedding: Lookup,
    F.group_norm: GroupNormalisation,
    F.layer_norm: LayerNormalisation,
}
