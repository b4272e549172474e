"""Whether the gradient of an image depends on the images beside it in a physical batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dpbench.core.images import Images
from dpbench.privacy.clipping import Engine, Objective

EXAMPLES = 8
# With the small norm every gradient has the same length, so that the direction of a short one shows
# beside longer ones; with the large norm lengths show too.
SMALL_NORM, LARGE_NORM = 1e-3, 1e6
# Share of a sum by which it may move. Operators round differently for another batch size; in
# bfloat16, which has 8 bits, by more.
ROUNDING, ROUNDING_OF_BFLOAT16 = 1e-3, 0.1


def mixes(model: nn.Module, objective: Objective, images: Images, clipped: Engine) -> bool:
    """Whether the clipped gradient of an image is another one among other images than alone.

    The sum over a batch, less the sum over the others, must be what the image gives by itself.

    Args:
        model: Network to differentiate.
        objective: Training loss.
        images: The first ``EXAMPLES`` are used.
        clipped: Engine that sums clipped gradients.
    """
    few = images[:EXAMPLES]
    if len(few) < 2:
        return False
    device = next(model.parameters()).device
    rng = torch.Generator(device).manual_seed(0)
    copies = objective.draw(few.pixels.to(device), few.labels.to(device), rng)

    bfloat16 = getattr(model, "precision", "") == "bfloat16"
    rounding = ROUNDING_OF_BFLOAT16 if bfloat16 else ROUNDING

    def total(rows: slice, norm: float) -> Tensor:
        sums = clipped(model, objective, tuple(each[rows] for each in copies), norm)
        return torch.cat([sums[name].flatten() for name in sorted(sums)])

    def moves(norm: float) -> bool:
        everyone, alone = total(slice(0, None), norm), total(slice(0, 1), norm)
        moved = float((everyone - total(slice(1, None), norm) - alone).norm())
        # a comparison with NaN is false, and NaN must not pass
        return not moved <= rounding * max(float(everyone.norm()), float(alone.norm()))

    return moves(SMALL_NORM) or moves(LARGE_NORM)
