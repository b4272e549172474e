"""Clipping: engines that sum the clipped per-example gradients of a batch.

An engine takes a model, an objective and the drawn copies of some examples, and returns the *sum*
over examples of ``g_i * min(1, C / |g_i|)``, where ``g_i`` is the gradient of the mean of the K
losses of example ``i``. The mean is clipped once, so the noise multiplicity K costs no privacy
(Dockhorn et al. 2022, section 3.2). A gradient that is not finite counts as zero.

All engines give the same numbers, at different speeds. Each is the function ``clipped_sum`` of a
module in this package.
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
    """A training loss of images, split into random draws and a deterministic loss.

    Attributes:
        multiplicity: Number of copies K (noise levels, augmentations) of each image.
    """

    @property
    def multiplicity(self) -> int:
        """Number of copies K of each image."""

    def draw(self, pixels: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, ...]:
        """Make all random draws of a step.

        Args:
            pixels: ``(B, C, H, W)``, uint8.
            labels: ``(B,)``, int64.
            rng: Generator on the device of ``pixels``.

        Returns:
            The copies: tensors of shape ``(B, K, ...)``.
        """

    def loss(self, predict: Predict, *copies: Tensor) -> Tensor:
        """Mean loss of each example over its copies, ``(B,)``, without random draws.

        Must call ``predict`` with all copies as rows in the order of ``as_rows``.
        """


def as_rows(copies: Tensor) -> Tensor:
    """Reshape ``(B, K, ...)`` to ``(K * B, ...)``, with the k-th copies of all examples adjacent.

    In this order the channels of all examples are contiguous for each k, without a copy in memory.
    """
    return copies.transpose(0, 1).flatten(0, 1)


def of_examples(rows: Tensor, examples: int) -> Tensor:
    """Reshape ``(K * B, ...)`` back to ``(B, K, ...)``, where B is ``examples``."""
    return rows.view(-1, examples, *rows.shape[1:]).transpose(0, 1)


class Engine(Protocol):
    """Sums the clipped per-example gradients of one physical batch.

    Several threads may call an engine on the same model at a time.
    """

    def __call__(
        self,
        model: nn.Module,
        objective: Objective,
        copies: tuple[Tensor, ...],
        clipping_norm: float,
    ) -> dict[str, Tensor]:
        """Differentiate the loss of each example, clip the gradients and add them up.

        Args:
            model: Module that treats examples independently.
            objective: Computes the loss of each example from its copies.
            copies: Tensors of shape ``(B, K, ...)``, drawn by the objective; B is at least 1.
            clipping_norm: C, above 0.

        Returns:
            For each trainable parameter a float32 tensor of its shape. Norms and sums are float32
            whatever the dtype of the forward pass.
        """


ENGINES = ("folded", "vmap", "loop", "opacus")


def engine(name: str) -> Engine:
    """Import the engine ``name`` of ``ENGINES``; late, because importing Opacus takes seconds."""
    result: Engine = importlib.import_module(f"{__name__}.{name}").clipped_sum
    return result


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable parameters by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def clip_factors(norms: Tensor, clipping_norm: float) -> Tensor:
    """Factors that clip each example's vector to norm C.

    Args:
        norms: ``(B,)``, Euclidean norms; may be infinite or NaN.
        clipping_norm: C, above 0.

    Returns:
        ``(B,)``: ``min(1, C / norm)``, or 0 where the norm is not finite.
    """
    # 1e-6 keeps the quotient finite and can only shorten vectors
    factors = (clipping_norm / (norms + 1e-6)).clamp(max=1)
    return torch.where(norms.isfinite(), factors, 0)


def clip_and_sum(gradients: dict[str, Tensor], clipping_norm: float) -> dict[str, Tensor]:
    """Clip each example's gradient, over all parameters together, and add them up.

    Args:
        gradients: For each parameter ``(B, *shape)``, float32: the gradient of each example.
        clipping_norm: C, above 0.

    Returns:
        For each parameter a float32 tensor of its shape. Every example contributes at most C to the
        Euclidean norm over all parameters, and nothing if its gradient is not finite.
    """
    norms = torch.stack([_matrix(g).norm(dim=1) for g in gradients.values()]).norm(dim=0)
    factors, finite = clip_factors(norms, clipping_norm), norms.isfinite()
    if not finite.all():
        gradients = {name: zero_rows(g, finite) for name, g in gradients.items()}
    return {name: (factors @ _matrix(g)).view(g.shape[1:]) for name, g in gradients.items()}


def _matrix(rows: Tensor) -> Tensor:
    """Reshape ``(B, *shape)`` to ``(B, D)``, with D = 1 for scalars."""
    return rows.flatten(1) if rows.ndim > 1 else rows[:, None]


def zero_rows(rows: Tensor, keep: Tensor) -> Tensor:
    """Set the rows of ``rows``, ``(B, ...)``, to zero where ``keep``, ``(B,)`` bool, is False.

    A product with 0 would not do, because 0 * NaN is NaN.
    """
    return torch.where(keep.view(-1, *(1,) * (rows.ndim - 1)), rows, 0)


def check_model(model: nn.Module) -> None:
    """Check that examples cannot influence each other through the model, and that it draws nothing.

    Raises:
        UserError: A module mixes the examples of a batch, keeps statistics of them, or draws at
            random in training.
    """
    for name, module in model.named_modules():
        if module.training and _draws(module):
            raise UserError(
                f"module {name or 'model'!r} ({type(module).__name__}) draws at random in training,"
                " so the gradient of an example is another one each time it is computed: set its "
                "probability to 0, or draw in the objective"
            )
        # base class of BatchNorm and InstanceNorm; the latter is harmless unless it tracks
        # statistics
        if isinstance(module, nn.modules.batchnorm._NormBase):
            mixes = isinstance(module, nn.modules.batchnorm._BatchNorm)
            if mixes or module.track_running_stats:
                raise UserError(
                    f"module {name or 'model'!r} ({type(module).__name__}) mixes the examples of a "
                    "batch, so no per-example gradient exists: use GroupNorm or LayerNorm"
                )


def _draws(module: nn.Module) -> bool:
    """Whether a module of torch draws at random in training mode."""
    if isinstance(module, nn.RReLU):
        return True
    name = "p" if isinstance(module, nn.modules.dropout._DropoutNd) else "dropout"
    share = getattr(module, name, 0)  # attention and recurrent layers have theirs as a number
    return isinstance(share, float) and share > 0
