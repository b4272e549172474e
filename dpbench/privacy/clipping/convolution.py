"""Per-example weight gradients of convolutions.

The method for each kind of convolution was chosen by timing on CPUs, in float32 and bfloat16, on
the layers of the project's networks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (its customary name)
from torch import Tensor

from dpbench.core.errors import UserError
from dpbench.privacy.clipping import of_examples
from dpbench.privacy.clipping.example_gradients import (
    ExampleGradients,
    Ghost,
    ParameterNames,
    Separate,
    Stacked,
)


class Convolution:
    """``conv2d``."""

    def __init__(
        self,
        names: ParameterNames,
        input: Tensor,  # noqa: A002 (torch calls it so)
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> None:
        """Keep the input."""
        if isinstance(padding, str):
            raise UserError(f"the folded engine does not know padding={padding!r}: use numbers")
        self.inputs = input.detach()
        self._weight, self._names = weight.detach(), (names.get(id(weight)), names.get(id(bias)))
        self._stride, self._padding = _pair(stride), _pair(padding)
        self._dilation, self._groups = _pair(dilation), groups

    def weight_gradients(
        self, gradient: Tensor, examples: int
    ) -> Iterator[tuple[str, ExampleGradients]]:
        """Yield the per-example gradients of the trainable parameters."""
        weight, bias = self._names
        if bias is not None:
            per_copy = gradient.sum(dim=(2, 3), dtype=torch.float32)
            yield bias, Stacked(of_examples(per_copy, examples).sum(dim=1))
        if weight is not None:
            yield weight, self._gradients_of_weight(gradient, examples)

    def _gradients_of_weight(self, gradient: Tensor, examples: int) -> ExampleGradients:
        plain = self._stride == self._dilation == (1, 1) and self._groups == 1
        inputs = self.inputs.to(gradient.dtype)  # as under autocast
        copies = len(inputs) // examples
        if plain and self._weight.shape[2:] == (1, 1) and self._padding == (0, 0):
            per_copy = gradient.flatten(2) @ inputs.flatten(2).mT
            rows = of_examples(per_copy, examples).sum(dim=1, dtype=torch.float32)
            return Stacked(rows.view(examples, *self._weight.shape))
        if plain and copies == 1 and self._ghost_is_cheaper(inputs):
            # both contractions are faster with channels last
            inputs, gradient = (
                each.to(torch.float32, memory_format=torch.channels_last)
                for each in (inputs, gradient)
            )
            return Ghost.of(
                self._products(inputs, gradient),
                lambda weighted, of: self._contract(weighted, inputs[of]),
                gradient,
            )
        if copies == 1 or math.prod(inputs.shape[2:]) <= 64:
            # the examples as groups of one convolution, whose kernel is slow for larger images
            gradient, inputs = (
                each.reshape(copies, -1, *each.shape[2:]) for each in (gradient, inputs)
            )
            rows = self._contract(gradient, inputs, examples)
            return Stacked(rows.view(examples, *self._weight.shape))
        pairs = zip(of_examples(gradient, examples), of_examples(inputs, examples), strict=True)
        return Separate([self._contract(*pair) for pair in pairs])

    def _contract(self, gradient: Tensor, inputs: Tensor, examples: int = 1) -> Tensor:
        """Weight gradient summed over all rows, separately for the channels of each example."""
        outputs, *rest = self._weight.shape
        result: Tensor = torch.ops.aten.convolution_backward(
            gradient,
            inputs,
            gradient.new_empty(outputs * examples, *rest),  # only its shape matters
            None,
            self._stride,
            self._padding,
            self._dilation,
            False,
            (0, 0),
            self._groups * examples,
            (False, True, False),
        )[1]
        return result

    def _ghost_is_cheaper(self, inputs: Tensor) -> bool:
        """Whether two Gram matrices cost less than a gradient (Bu et al. 2022, 2205.10683)."""
        return 2 * math.prod(inputs.shape[2:]) ** 2 <= self._weight.numel()

    def _products(self, inputs: Tensor, gradient: Tensor) -> Tensor:
        """Inner products of what places add to the weight gradient, without unfolding the input.

        With x the padded input and g the gradient of the output of a stride-1 convolution, that of
        p and q is ``<g_p, g_q> sum_{d in kernel} <x_{p+d}, x_{q+d}>``. The sum is taken over
        the Gram matrix of x, first over horizontal and then over vertical shifts. An unfolded input
        would be larger by the number of places of the kernel.
        """
        (high, wide), (pad_y, pad_x) = self._weight.shape[2:], self._padding
        rows, columns = gradient.shape[2:]
        x, g = inputs.flatten(2), gradient.flatten(2)
        gram = (x.mT @ x).view(len(x), *inputs.shape[2:], *inputs.shape[2:])
        gram = F.pad(gram, (pad_x, pad_x, pad_y, pad_y) * 2)
        gram = _sum(gram[:, :, i : i + columns, :, i : i + columns] for i in range(wide))
        gram = _sum(gram[:, i : i + rows, :, i : i + rows] for i in range(high))
        return gram.reshape(len(x), rows * columns, -1) * (g.mT @ g)


def _sum(terms: Iterator[Tensor]) -> Tensor:
    total = next(terms).clone()
    for term in terms:
        total += term
    return total


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
