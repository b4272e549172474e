"""One ordinary pass over all copies, then weight gradients layer by layer, K copies at once.

The network runs forward and backward as in training without privacy, but with its weights held
constant: that leaves the input of each layer and the gradient of its output. From these two, each
layer's weight gradient is formed example by example, with the K copies of an example in one
contraction, or not formed at all where its norm can be had without (``layers``). So nothing is
materialised for single copies, and the cost is that of a step without privacy plus little.

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
from dpbench.privacy.clipping.example_gradients import Part
from dpbench.privacy.clipping.layers import LAYERS, Layer


def clipped_sum(
    model: nn.Module,
    objective: Objective,
    copies: tuple[Tensor, ...],
    clipping_norm: float,
) -> dict[str, Tensor]:
    """The sum of clipped per-example gradients: see ``dpbench.privacy.clipping.Engine``.

    Works for models whose trainable parameters belong to the layers of ``layers.LAYERS``.

    Raises:
        UserError: A parameter is used in another way, or twice, or an output is changed in place.
    """
    parameters, examples = trainable(model), len(copies[0])
    total = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}
    if not examples:
        return total
    with _Capture(parameters, examples, objective.multiplicity) as capture:
        loss = objective.loss(model, *copies)
    torch.autograd.grad(loss.sum(), capture.leaves, allow_unused=True)
    parts = capture.parts
    norms = torch.stack([part.norms for part in parts.values()]).norm(dim=0)
    finite = norms.isfinite()
    if not finite.all():
        # 0 * NaN is NaN, so such an example must be left out rather than weighted with 0
        return clipped_sum(model, objective, tuple(p[finite] for p in copies), clipping_norm)
    factors = clip_factors(norms, clipping_norm)
    with torch.no_grad():
        return total | {name: part.weighted_sum(factors) for name, part in parts.items()}


class _Capture(TorchFunctionMode):
    """While active, on its thread: has each layer with trainable weights leave its gradients.

    It sees every torch function that is given a trainable parameter, so that none is used unseen.

    Attributes:
        leaves: Where the backward pass ends: outputs of layers that no trainable layer precedes.
        parts: For each parameter its gradients, from the backward pass on.
    """

    def __init__(
        self, parameters: dict[str, nn.Parameter], examples: int, multiplicity: int
    ) -> None:
        super().__init__()
        self._names = {id(parameter): name for name, parameter in parameters.items()}
        self._used: set[str] = set()
        self._examples, self._rows = examples, examples * multiplicity
        self.leaves: list[Tensor] = []
        self.parts: dict[str, Part] = {}

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
        if not isinstance(output, Tensor):  # a look at its shape, for instance
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
            _taker(layer, names[0], self.parts, self._examples)
        )
        return output

    def _constant(self, argument: Any) -> Any:
        return argument.detach() if id(argument) in self._names else argument


def _taker(
    layer: Layer, name: str, parts: dict[str, Part], examples: int
) -> Callable[[Tensor], None]:
    """What to do with the gradient of a layer's output as soon as it is there.

    Must not know the output, which knows it: in a cycle memory would wait for the collector.
    """
    version = layer.inputs._version

    def take(gradient: Tensor) -> None:
        if layer.inputs._version != version:
            raise _unfit(f"cannot follow the change in place of what went into {name!r}")
        with torch.no_grad(), torch.autocast(gradient.device.type, enabled=False):
            parts.update(layer.weight_gradients(gradient, examples))

    return take


def _unfit(reason: str) -> UserError:
    return UserError(f"the folded engine {reason}: choose --engine vmap or loop")
