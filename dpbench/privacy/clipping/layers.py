"""Weight gradients of single layers, example by example.

A layer's application to all copies leaves its input and its output. Given the gradient of the
output, each parameter gets a ``Part``: the Euclidean norm of its gradient for every example, and
their weighted sum. How it finds them is its own affair: forming each example's gradient, or the
norm without the gradient ("ghost norm") and one re-weighted contraction for the sum.

Rows of a layer's input and output are copies, those of an example next to each other: B examples
of K copies each are B * K rows. Norms and sums are float32 whatever the layer computed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 (its customary name)
from torch import Tensor

from dpbench.errors import UserError

Names = dict[int, str]


class Part(Protocol):
    """The gradients of one parameter, one for each of B examples.

    Attributes:
        norms: ``(B,)``, float32.
    """

    norms: Tensor

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """``sum_i factors[i] * gradient_i``, float32; ``factors`` is ``(B,)``."""


class Application(Protocol):
    """One use of a layer.

    Attributes:
        inputs: What went in; its first dimension counts copies.
        output: What came out, part of the autograd graph.
    """

    inputs: Tensor
    output: Tensor

    def weight_gradients(self, gradient: Tensor, examples: int) -> Iterator[tuple[str, Part]]:
        """For each trainable parameter its name and its part.

        Args:
            gradient: Of the loss with respect to ``output``, of its shape.
            examples: B.
        """


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
        contract: Maps the gradient of the layer's output, each row times its example's factor, to
            the parameter's gradient.
        gradient: Of the layer's output, float32.
    """

    norms: Tensor
    contract: Callable[[Tensor], Tensor]
    gradient: Tensor

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """See ``Part``."""
        copies = len(self.gradient) // len(factors)
        weights = factors.repeat_interleave(copies)
        return self.contract(self.gradient * _along_first(weights, self.gradient.ndim))


class Convolution:
    """``conv2d``."""

    def __init__(
        self,
        names: Names,
        input: Tensor,  # noqa: A002 (torch calls it so)
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> None:
        """Apply the layer."""
        if isinstance(padding, str):
            raise UserError(f"the folded engine does not know padding={padding!r}: use numbers")
        self.inputs = input.detach()
        self._weight, self._names = weight.detach(), (names.get(id(weight)), names.get(id(bias)))
        self._stride, self._padding = _pair(stride), _pair(padding)
        self._dilation, self._groups = _pair(dilation), groups
        self.output = _tracked(
            F.conv2d(input, self._weight, _detached(bias), stride, padding, dilation, groups)
        )

    def weight_gradients(self, gradient: Tensor, examples: int) -> Iterator[tuple[str, Part]]:
        """See ``Application``."""
        weight, bias = self._names
        if bias is not None:
            per_copy = gradient.sum(dim=(2, 3), dtype=torch.float32)
            yield bias, Rows(_fold(per_copy, examples).sum(dim=1))
        if weight is not None:
            yield weight, self._weight_part(gradient, examples)

    def _weight_part(self, gradient: Tensor, examples: int) -> Part:
        simple = self._stride == self._dilation == (1, 1) and self._groups == 1
        inputs = self.inputs.to(gradient.dtype)  # as autocast does
        simple &= examples == len(inputs)
        if simple and self._weight.shape[2:] == (1, 1) and self._padding == (0, 0):
            rows = gradient.flatten(2) @ inputs.flatten(2).mT
            return Rows(rows.view(examples, *self._weight.shape))
        if simple and self._ghost_is_cheaper(inputs):
            inputs, gradient = inputs.float(), gradient.float()
            return Ghost(
                self._ghost_norms(inputs, gradient),
                lambda weighted: self._contract(weighted, inputs),
                gradient,
            )
        copies = len(inputs) // examples
        pairs = zip(torch.split(gradient, copies), torch.split(inputs, copies), strict=True)
        return Separate([self._contract(*pair) for pair in pairs])

    def _contract(self, gradient: Tensor, inputs: Tensor) -> Tensor:
        """The weight gradient of all rows together."""
        result: Tensor = torch.ops.aten.convolution_backward(
            gradient,
            inputs,
            self._weight.to(gradient.dtype),
            None,
            self._stride,
            self._padding,
            self._dilation,
            False,
            (0, 0),
            self._groups,
            (False, True, False),
        )[1]
        return result

    def _ghost_is_cheaper(self, inputs: Tensor) -> bool:
        """Whether two Gram matrices cost less than a gradient: Bu et al. 2022, 2205.10683."""
        positions = math.prod(
            side + 2 * pad for side, pad in zip(inputs.shape[2:], self._padding, strict=True)
        )
        return 2 * positions**2 <= self._weight.numel()

    def _ghost_norms(self, inputs: Tensor, gradient: Tensor) -> Tensor:
        """Norms of weight gradients of stride-1 convolutions, without unfolding the input.

        With x the padded input and g the output's gradient, the squared norm is
        ``sum_{p,q} <g_p, g_q> sum_{d in kernel} <x_{p+d}, x_{q+d}>``. With positions numbered along
        the rows of the *padded* image, the shift d moves along the diagonal of x's Gram matrix, so
        the inner sum is a sum of shifted slices of its flat memory.
        """
        (high, wide), (pad_y, pad_x) = self._weight.shape[2:], self._padding
        x = F.pad(inputs, (pad_x, pad_x, pad_y, pad_y))
        width, positions = x.shape[3], x.shape[2] * x.shape[3]
        g = F.pad(gradient, (0, width - gradient.shape[3])).flatten(2)
        count = positions - (high - 1) * width - (wide - 1)  # positions that a kernel starts at
        g = g[:, :, :count]
        x = x.flatten(2)
        diagonal = (x.mT @ x).flatten(1)
        for shifts, distance in ((wide, 1), (high, width)):
            step = distance * (positions + 1)
            length = diagonal.shape[1] - (shifts - 1) * step
            slices = [diagonal[:, i * step : i * step + length] for i in range(shifts)]
            diagonal = slices[0].clone()
            for each in slices[1:]:
                diagonal += each
        correlations = diagonal.as_strided(
            (len(x), count, count), (diagonal.stride(0), positions, 1)
        )
        # rounding can bring a tiny square below zero
        return (correlations * (g.mT @ g)).sum(dim=(1, 2)).clamp(min=0).sqrt()


class Affine:
    """``linear``, on any number of positions."""

    def __init__(
        self,
        names: Names,
        input: Tensor,  # noqa: A002 (torch calls it so)
        weight: Tensor,
        bias: Tensor | None = None,
    ) -> None:
        """Apply the layer."""
        self.inputs = input.detach()
        self._names = names.get(id(weight)), names.get(id(bias))
        self.output = _tracked(F.linear(input, weight.detach(), _detached(bias)))

    def weight_gradients(self, gradient: Tensor, examples: int) -> Iterator[tuple[str, Part]]:
        """See ``Application``."""
        weight, bias = self._names
        x = self.inputs.reshape(examples, -1, self.inputs.shape[-1]).float()
        g = gradient.reshape(examples, -1, gradient.shape[-1]).float()
        if bias is not None:
            yield bias, Rows(g.sum(dim=1))
        if weight is None:
            return
        if 2 * x.shape[1] ** 2 <= x.shape[2] * g.shape[2]:
            squares = ((x @ x.mT) * (g @ g.mT)).sum(dim=(1, 2))
            norms = squares.clamp(min=0).sqrt()
            yield weight, Ghost(norms, lambda w: w.flatten(0, 1).mT @ x.flatten(0, 1), g)
        else:
            yield weight, Rows(g.mT @ x)


class Lookup:
    """``embedding``."""

    def __init__(
        self,
        names: Names,
        input: Tensor,  # noqa: A002 (torch calls it so)
        weight: Tensor,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> None:
        """Apply the layer."""
        if max_norm is not None or scale_grad_by_freq:
            raise UserError("an embedding's max_norm and scale_grad_by_freq mix examples")
        self.inputs = input
        self._name, self._shape, self._padding = names[id(weight)], weight.shape, padding_idx
        self.output = _tracked(F.embedding(input, weight.detach(), padding_idx))

    def weight_gradients(self, gradient: Tensor, examples: int) -> Iterator[tuple[str, Part]]:
        """See ``Application``."""
        index = self.inputs.reshape(examples, -1)
        g = gradient.reshape(*index.shape, -1).float()
        if self._padding is not None:
            g = g.masked_fill((index == self._padding)[:, :, None], 0)
        same = index[:, :, None] == index[:, None, :]
        squares = torch.where(same, g @ g.mT, 0).sum(dim=(1, 2))

        def contract(weighted: Tensor) -> Tensor:
            total = torch.zeros(self._shape, device=weighted.device)
            return total.index_add_(0, index.flatten(), weighted.flatten(0, 1))

        yield self._name, Ghost(squares.clamp(min=0).sqrt(), contract, g)


class GroupNormalisation:
    """``group_norm``."""

    def __init__(
        self,
        names: Names,
        input: Tensor,  # noqa: A002 (torch calls it so)
        num_groups: int,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
    ) -> None:
        """Apply the layer."""
        self.inputs = input.detach()
        self._names = names.get(id(weight)), names.get(id(bias))
        self._groups, self._eps = num_groups, eps
        self.output = _tracked(
            F.group_norm(input, num_groups, _detached(weight), _detached(bias), eps)
        )

    def weight_gradients(self, gradient: Tensor, examples: int) -> Iterator[tuple[str, Part]]:
        """See ``Application``."""
        normalised = F.group_norm(self.inputs.float(), self._groups, eps=self._eps).flatten(2)
        g = gradient.float().flatten(2)
        scaled, plain = (g * normalised).sum(dim=2), g.sum(dim=2)
        yield from _affine_parts(self._names, scaled, plain, examples)


class LayerNormalisation:
    """``layer_norm``."""

    def __init__(
        self,
        names: Names,
        input: Tensor,  # noqa: A002 (torch calls it so)
        normalized_shape: Sequence[int],
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
    ) -> None:
        """Apply the layer."""
        self.inputs = input.detach()
        self._names = names.get(id(weight)), names.get(id(bias))
        self._shape, self._eps = list(normalized_shape), eps
        self.output = _tracked(
            F.layer_norm(input, self._shape, _detached(weight), _detached(bias), eps)
        )

    def weight_gradients(self, gradient: Tensor, examples: int) -> Iterator[tuple[str, Part]]:
        """See ``Application``."""
        normalised = F.layer_norm(self.inputs.float(), self._shape, eps=self._eps)
        g = gradient.float()
        per_copy = (len(g), -1, *self._shape)
        scaled, plain = ((g * normalised).view(per_copy).sum(1), g.view(per_copy).sum(1))
        yield from _affine_parts(self._names, scaled, plain, examples)


def _affine_parts(
    names: tuple[str | None, str | None], scaled: Tensor, plain: Tensor, examples: int
) -> Iterator[tuple[str, Part]]:
    """Parts of a scale and an offset, from their gradients for each copy."""
    for name, per_copy in zip(names, (scaled, plain), strict=True):
        if name is not None:
            yield name, Rows(_fold(per_copy, examples).sum(dim=1))


def _tracked(output: Tensor) -> Tensor:
    """The output, made a part of the graph if the layer is the first with weights."""
    return output if output.requires_grad else output.detach().requires_grad_()


def _detached(parameter: Tensor | None) -> Tensor | None:
    return None if parameter is None else parameter.detach()


def _fold(per_copy: Tensor, examples: int) -> Tensor:
    """``(B * K, ...)`` to ``(B, K, ...)``."""
    return per_copy.view(examples, -1, *per_copy.shape[1:])


def _along_first(weights: Tensor, dimensions: int) -> Tensor:
    return weights.view(-1, *(1,) * (dimensions - 1))


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


APPLICATIONS: dict[Callable[..., Any], Callable[..., Application]] = {
    F.conv2d: Convolution,
    F.linear: Affine,
    F.embedding: Lookup,
    F.group_norm: GroupNormalisation,
    F.layer_norm: LayerNormalisation,
}
