"""Sums of clipped per-example gradients.

An engine takes a model, an objective and the drawn copies of some examples, and returns the *sum*
over examples of ``g_i * min(1, C / |g_i|)``, where ``g_i`` is the gradient of the mean of example
``i``'s K losses: clipped once, so the noise multiplicity K costs no privacy (Dockhorn et al. 2022,
section 3.2). A gradient that is not finite counts as zero.

The engines give the same numbers at different speeds; each is the function ``clipped_sum`` of a
module here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from dpbench.core.errors import UserError

Predict = Callable[..., Tensor]


class Objective(Protocol):
    """A training loss over images, in the two halves that private training needs.

    Attributes:
        multiplicity: K, the number of copies (noise levels, augmentations) of each image.
    """

    @property
    def multiplicity(self) -> int:
        """K."""

    def draw(self, pixels: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, ...]:
        """Draw everything random about a step.

        Args:
            pixels: ``(B, C, H, W)``, uint8.
            labels: ``(B,)``, int64.
            rng: On the device of ``pixels``.

        Returns:
            Tensors of shape ``(B, K, ...)``.
        """

    def loss(self, predict: Predict, *copies: Tensor) -> Tensor:
        """Mean loss of each example over its copies: ``(B,)``, no draw in it.

        Calls ``predict`` with all copies as rows in the order of ``as_rows``.
        """


def as_rows(copies: Tensor) -> Tensor:
    """``(B, K, ...)`` to ``(K * B, ...)``: the k-th copies of all examples are neighbours.

    In this order the channels of all examples lie side by side for each k, without a copy.
    """
    return copies.transpose(0, 1).flatten(0, 1)


def of_examples(rows: Tensor, examples: int) -> Tensor:
    """``(K * B, ...)`` back to ``(B, K, ...)``, where B is ``examples``."""
    return rows.view(-1, examples, *rows.shape[1:]).transpose(0, 1)


class Engine(Protocol):
    """Sums clipped per-example gradients over one physical batch.

    Engines may be called on the same model by several threads at a time.
    """

    def __call__(
        self,
        model: nn.Module,
        objective: Objective,
        copies: tuple[Tensor, ...],
        clipping_norm: float,
    ) -> dict[str, Tensor]:
        """Differentiate, clip and add up.

        Args:
            model: Any module that treats examples independently.
            objective: Gives the loss of each example from its copies.
            copies: Tensors of shape ``(B, K, ...)``, as drawn by the objective; B at least 1.
            clipping_norm: C, above 0.

        Returns:
            For each trainable parameter, a float32 tensor of its shape. Norms and sums are float32
            whatever the forward pass computes in.
        """


ENGINES = ("folded", "vmap", "loop", "opacus")


def engine(name: str) -> Engine:
    """The engine of a name in ``ENGINES``; imported only now, since Opacus takes seconds."""
    result: Engine = importlib.import_module(f"{__name__}.{name}").clipped_sum
    return result


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training changes, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def clip_factors(norms: Tensor, clipping_norm: float) -> Tensor:
    """What to multiply each example's vector by.

    Args:
        norms: ``(B,)``, Euclidean norms; may be infinite or NaN.
        clipping_norm: C, above 0.

    Returns:
        ``(B,)``: ``min(1, C / norm)``, and 0 where the norm is not finite.
    """
    # 1e-6 keeps the quotient finite and only ever shortens
    factors = (clipping_norm / (norms + 1e-6)).clamp(max=1)
    return torch.where(norms.isfinite(), factors, 0)


def clip_and_sum(gradients: dict[str, Tensor], clipping_norm: float) -> dict[str, Tensor]:
    """Clip each example's gradient, over all parameters together, and add them up.

    Args:
        gradients: For each parameter, ``(B, *shape)``, float32: one gradient for each example.
        clipping_norm: C, above 0.

    Returns:
        For each parameter, a float32 tensor of its shape; every example contributes at most C to
        the Euclidean norm of the whole, and nothing if its gradient is not finite.
    """
    norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients.values()]).norm(dim=0)
    factors, finite = clip_factors(norms, clipping_norm), norms.isfinite()
    if not finite.all():
        gradients = {name: zero_rows(g, finite) for name, g in gradients.items()}
    return {name: (factors @ g.flatten(1)).view(g.shape[1:]) for name, g in gradients.items()}


def zero_rows(rows: Tensor, keep: Tensor) -> Tensor:
    """Rows of ``rows`` (``(B, ...)``) where ``keep`` (``(B,)``, bool), zeros elsewhere.

    A product with 0 would not do: 0 * NaN is NaN.
    """
    return torch.where(keep.view(-1, *(1,) * (rows.ndim - 1)), rows, 0)


def check_model(model: nn.Module) -> None:
    """Hold that examples cannot influence each other through the model.

    Raises:
        UserError: A module mixes the examples of a batch, or keeps statistics of them.
    """
    for name, module in model.named_modules():
        # this is BatchNorm's base class, and that of InstanceNorm, which is harmless unless it
        # tracks statistics
        if isinstance(module, nn.modules.batchnorm._NormBase):
            mixes = isinstance(module, nn.modules.batchnorm._BatchNorm)
            if mixes or module.track_running_stats:
                raise UserError(
                    f"module {name or 'model'!r} ({type(module).__name__}) mixes the examples of a "
                    "batch, so no per-example gradient exists: use GroupNorm or LayerNorm"
                )
