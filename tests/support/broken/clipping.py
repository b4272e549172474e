"""Broken clipping engines and sums over a logical batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dpbench.core.images import Images
from dpbench.privacy.clipping import Objective, trainable
from dpbench.privacy.clipping.vmap import clipped_sum
from dpbench.privacy.dpsgd import gradient_sum
from dpbench.privacy.draws import Draws
from tests.support.private import Copies, Gradients, copy_gradients, shaped, shortened


def clips_each_copy(m: nn.Module, o: Objective, copies: Copies, c: float) -> Gradients:
    return shaped(m, shortened(copy_gradients(m, o, copies), c).mean(dim=1).sum(dim=0))


def clips_each_copy_without_mean(m: nn.Module, o: Objective, copies: Copies, c: float) -> Gradients:
    return shaped(m, shortened(copy_gradients(m, o, copies), c).sum(dim=(0, 1)))


def clips_the_batch(m: nn.Module, o: Objective, copies: Copies, c: float) -> Gradients:
    total = copy_gradients(m, o, copies).mean(dim=1).sum(dim=0)
    return shaped(m, shortened(total, c * len(copies[0])))


def clips_each_tensor(m: nn.Module, o: Objective, copies: Copies, c: float) -> Gradients:
    rows = copy_gradients(m, o, copies).mean(dim=1)
    parts = torch.split(rows, [p.numel() for p in trainable(m).values()], dim=1)
    return shaped(m, torch.cat([shortened(part, c).sum(dim=0) for part in parts]))


def never_clips(m: nn.Module, o: Objective, copies: Copies, c: float) -> Gradients:
    return clipped_sum(m, o, copies, 1e30)


def averages(m: nn.Module, o: Objective, copies: Copies, c: float) -> Gradients:
    return {name: part / len(copies[0]) for name, part in clipped_sum(m, o, copies, c).items()}


def lets_nan_through(m: nn.Module, o: Objective, copies: Copies, c: float) -> Gradients:
    rows = copy_gradients(m, o, copies).mean(dim=1)
    factors = (c / rows.norm(dim=1, keepdim=True)).clamp(max=1)
    return shaped(m, (rows * factors).sum(dim=0))


def takes_norms_in_bfloat16(m: nn.Module, o: Objective, copies: Copies, c: float) -> Gradients:
    rows = copy_gradients(m, o, copies).mean(dim=1)
    norms = rows.norm(dim=1, keepdim=True)
    scaled = rows * (c / norms.bfloat16().float()).clamp(max=1)
    return shaped(m, torch.where(norms.isfinite(), scaled, 0).sum(dim=0))


def rounds_sums_to_bfloat16(m: nn.Module, o: Objective, copies: Copies, c: float) -> Gradients:
    return {name: s.bfloat16().float() for name, s in clipped_sum(m, o, copies, c).items()}


def drops_the_ragged_batch(
    m: nn.Module, o: Objective, images: Images, batch: Tensor, size: int, **how: Any
) -> Gradients:
    whole = batch[: len(batch) // size * size]
    return gradient_sum(m, o, images, whole, size=size, **how)


def divides_by_the_realised_batch(
    m: nn.Module, o: Objective, images: Images, batch: Tensor, *how: Any, **named: Any
) -> Gradients:
    # the loop divides by the expected batch, 1000 here: taken back
    total = gradient_sum(m, o, images, batch, *how, **named)
    return {name: part * 1000 / max(1, len(batch)) for name, part in total.items()}


def draws_one_after_another(
    o: Objective, images: Images, batch: Tensor, draws: Draws, device: torch.device
) -> Callable[[int, int], Copies]:
    """From one generator, physical batch by physical batch."""
    generator = draws(0)

    def between(first: int, last: int) -> Copies:
        part = images[batch[first:last]]
        return o.draw(part.pixels, part.labels, generator)

    return between
