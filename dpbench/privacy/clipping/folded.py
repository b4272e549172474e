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

from dpbench.errors import UserError
from dpbench.privacy.clipping import Objective, clip_factors, trainable
from dpbench.privacy.clipping.layers import APPLICATIONS, Application


def clipped_sum(
    model: nn.Module,
    objective: Objective,
    copies: tuple[Tensor, ...],
    clipping_norm: float,
) -> dict[str, Tensor]:
    """The sum of clipped per-example gradients: see ``dpbench.privacy.clipping.Engine``.

    Works for models whose trainable parameters belong to the layers of ``layers.APPLICATIONS``.

    Raises:
        UserError: A parameter is used in another way, or twice, or an output is changed in place.
    """
    parameters, examples = trainable(model), len(copies[0])
    total = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}
    if not examples:
        return total
    with _Capture(parameters, examples * objective.multiplicity) as capture:
        loss = objective.loss(model, *copies)
    applications = capture.applications
    gradients = torch.autograd.grad(
        loss.sum(), [each.output for each in applications], materialize_grads=True
    )
    with torch.no_grad(), torch.autocast(loss.device.type, enabled=False):
        parts = {
            name: part
            for each, gradient in zip(applications, gradients, strict=True)
            for name, part in each.weight_gradients(gradient, examples)
        }
        norms = torch.stack([part.norms for part in parts.values()]).norm(dim=0)
        finite = norms.isfinite()
        if not finite.all():
            # 0 * NaN is NaN, so such an example must be left out rather than weighted with 0
            rest = tuple(part[finite] for part in copies)
            return clipped_sum(model, objective, rest, clipping_norm)
        factors = clip_factors(norms, clipping_norm)
        return total | {name: part.weighted_sum(factors) for name, part in parts.items()}


class _Capture(TorchFunctionMode):
    """While active, on its thread: keeps what goes in and out of layers with trainable weights.

    It sees every torch function that is given a trainable parameter, so that none is used unseen.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], rows: int) -> None:
        super().__init__()
        self._names = {id(parameter): name for name, parameter in parameters.items()}
        self._rows = rows
        self._used: set[str] = set()
        self.applications: list[Application] = []

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
        if func not in APPLICATIONS:
            return self._without_weights(func, names, args, kwargs)
        for name in names:
            if name in self._used:
                raise UserError(f"the folded engine cannot use parameter {name!r} twice: {_OTHERS}")
        self._used.update(names)
        application = APPLICATIONS[func](self._names, *args, **kwargs)
        if len(application.inputs) != self._rows:
            raise UserError(
                f"the layer of parameter {names[0]!r} got {len(application.inputs)} rows instead "
                f"of {self._rows}, one for each copy, which the folded engine needs: {_OTHERS}"
            )
        self.applications.append(application)
        return application.output

    def _without_weights(
        self, func: Callable[..., Any], names: list[str], args: Any, kwargs: Any
    ) -> Any:
        """Let through what makes no tensor of a parameter, such as a look at its shape."""
        result = func(*args, **kwargs)
        if isinstance(result, Tensor):
            raise UserError(
                f"the folded engine does not know {getattr(func, '__name__', func)!r}, which "
                f"parameter {names[0]!r} is used in: {_OTHERS}"
            )
        return result


_OTHERS = "choose --engine vmap or loop"
