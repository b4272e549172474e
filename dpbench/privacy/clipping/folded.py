"""The folded engine: one ordinary pass, then per-example gradients with the K copies folded in.

The network runs forward and backward as in training without privacy, but with constant weights,
which leaves the input of each layer and the gradient of its output. From these two, the weight
gradients of a layer are formed example by example, with the K copies of an example in one
contraction; where the norm can be computed without the gradient, they are not formed (``layers``).
So nothing is materialised per copy, and a step costs little more than one without privacy.

Book-keeping and mixed ghost clipping: Bu et al. 2022, arXiv 2210.00038 and 2205.10683.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dpbench.core.errors import UserError
from dpbench.privacy.clipping import Objective, clip_factors, trainable
from dpbench.privacy.clipping.example_gradients import ExampleGradients
from dpbench.privacy.clipping.layers import LAYERS, Layer


def clipped_sum(
    model: nn.Module,
    objective: Objective,
    copies: tuple[Tensor, ...],
    clipping_norm: float,
) -> dict[str, Tensor]:
    """Sum clipped per-example gradients, as an ``Engine`` does.

    Works for models whose trainable parameters belong to the layers of ``layers.LAYERS``.

    Raises:
        UserError: A parameter is used in another way or twice, or the input of a layer is changed
            in place.
    """
    parameters, examples = trainable(model), len(copies[0])
    total = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}
    if not examples:
        return total
    with _Capture(parameters, examples, objective.multiplicity) as capture:
        loss = objective.loss(model, *copies)
    torch.autograd.grad(loss.sum(), capture.leaves, allow_unused=True)
    gradients = capture.gradients
    norms = torch.stack([each.norms for each in gradients.values()]).norm(dim=0)
    finite = norms.isfinite()
    if not finite.all():
        # such an example is left out rather than weighted with 0, because 0 * NaN is NaN
        return clipped_sum(model, objective, tuple(p[finite] for p in copies), clipping_norm)
    factors = clip_factors(norms, clipping_norm)
    with torch.no_grad():
        return total | {name: each.weighted_sum(factors) for name, each in gradients.items()}


class _Capture(TorchFunctionMode):
    """Captures the per-example gradients of every layer with trainable weights, while active.

    It intercepts, on its thread, every torch function that gets a trainable parameter, so that no
    use of a parameter goes unnoticed.

    Attributes:
        leaves: Outputs of layers that no trainable layer precedes; the backward pass ends there.
        gradients: Gradients of each parameter; filled by the backward pass.
    """

    def __init__(
        self, parameters: dict[str, nn.Parameter], examples: int, multiplicity: int
    ) -> None:
        super().__init__()
        self._names = {id(parameter): name for name, parameter in parameters.items()}
        self._used: set[str] = set()
        self._examples, self._rows = examples, examples * multiplicity
        self.leaves: list[Tensor] = []
        self.gradients: dict[str, ExampleGradients] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        names = [
            self._names[id(each)] for each in (*args, *kwargs.values()) if id(each) in self._names
        ]
        if not names:
            return func(*args, **kwargs)
        output = func(
            *(self._constant(each) for each in args),
            **{key: self._constant(each) for key, each in kwargs.items()},
        )
        if not isinstance(output, Tensor):  # for instance the shape of the parameter
            return output
        if func not in LAYERS:
            function = getattr(func, "__name__", func)
            raise _unfit(f"does not know {function!r}, which {names[0]!r} is used in")
        if not self._used.isdisjoint(names):
            raise _unfit(f"cannot use {names[0]!r} twice")
        self._used.update(names)
        layer = LAYERS[func](self._names, *args, **kwargs)
        if len(layer.inputs) != self._rows:
            raise _unfit(
                f"needs {self._rows} rows, one for each copy, but the layer of {names[0]!r} got "
                f"{len(layer.inputs)}"
            )
        if not output.requires_grad:
            output.requires_grad_()
            self.leaves.append(output)
        output.register_hook(  # type: ignore[no-untyped-call]
            _taker(layer, names[0], self.gradients, self._examples)
        )
        return output

    def _constant(self, argument: Any) -> Any:
        return argument.detach() if id(argument) in self._names else argument


def _taker(
    layer: Layer, name: str, gradients: dict[str, ExampleGradients], examples: int
) -> Callable[[Tensor], None]:
    """Hook that takes the gradient of a layer's output as soon as it is computed.

    It must not refer to the output, which refers to it: memory in a cycle would wait for the
    garbage collector.
    """
    version = layer.inputs._version

    def take(gradient: Tensor) -> None:
        if layer.inputs._version != version:
            raise _unfit(f"cannot follow the change in place of what went into {name!r}")
        with torch.no_grad(), torch.autocast(gradient.device.type, enabled=False):
            gradients.update(layer.weight_gradients(gradient, examples))

    return take


def _unfit(reason: str) -> UserError:
    return UserError(f"the folded engine {reason}: choose --engine vmap or loop")
