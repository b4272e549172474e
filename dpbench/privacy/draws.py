"""Copies of a private batch: drawn from key, step and place alone, and as many as are stated."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from dpbench.core.errors import UserError
from dpbench.core.images import Images
from dpbench.privacy.clipping import Objective, Predict

# Copies (images x multiplicity) that share a generator: enough that creating it costs little, few
# enough that their memory does not matter.
COPIES_DRAWN_TOGETHER = 256

Copies = tuple[Tensor, ...]
# Maps the number of a chunk of the batch to its generator.
Draws = Callable[[int], torch.Generator]


class HeldToItsCopies:
    """An objective that sends no more copies of an image through the network than it states.

    Gradient evaluations are counted from ``multiplicity``, so it is held to it.

    Args:
        objective: The method's objective.
    """

    def __init__(self, objective: Objective) -> None:
        """Read the multiplicity once, so that it stays what was counted."""
        self.multiplicity = objective.multiplicity
        self._objective = objective

    def draw(self, pixels: Tensor, labels: Tensor, rng: torch.Generator) -> Copies:
        """Draw the copies."""
        return self._objective.draw(pixels, labels, rng)

    def loss(self, predict: Predict, *copies: Tensor) -> Tensor:
        """Compute the loss, and count the rows that go through the network.

        Raises:
            UserError: They are more than ``multiplicity`` for each image.
        """
        left = len(copies[0]) * self.multiplicity

        def counted(*inputs: Tensor, **named: Tensor) -> Tensor:
            nonlocal left
            left -= len(next(iter((*inputs, *named.values()))))
            if left < 0:
                raise UserError(
                    f"the objective states {self.multiplicity} copies of each image and sends more "
                    "through the network: state as its multiplicity all that it evaluates"
                )
            return predict(*inputs, **named)

        return self._objective.loss(counted, *copies)


def drawn_copies(
    objective: Objective, images: Images, batch: Tensor, draws: Draws, device: torch.device
) -> Callable[[int, int], Copies]:
    """Access to what an objective draws for a batch, by place in the batch.

    The batch is cut into chunks of a fixed number of images. Each chunk is drawn as a whole, the
    last one padded, from a generator of its own. So the draws of a place depend neither on how many
    images follow, nor on where physical batches begin, nor on how ranks share the batch.

    Args:
        objective: Draws the copies.
        images: Images that the batch indexes.
        batch: ``(B,)``, int64 indices.
        draws: Returns the generator of a chunk, on ``device``, at its start.
        device: Device of the copies.

    Returns:
        A function of ``first`` and ``last``, with ``0 <= first < last <= B``, that returns the
        copies of the images in ``batch[first:last]``. It is fastest when called in order.
    """
    size = max(1, COPIES_DRAWN_TOGETHER // objective.multiplicity)

    @lru_cache(maxsize=1)
    def chunk(number: int) -> Copies:
        indices = batch[number * size : (number + 1) * size]
        missing = size - len(indices)
        part = images[torch.cat([indices, indices[-1:].expand(missing)])]
        return objective.draw(part.pixels.to(device), part.labels.to(device), draws(number))

    def between(first: int, last: int) -> Copies:
        pieces = []
        for number in range(first // size, (last - 1) // size + 1):
            start = number * size
            low, high = max(first - start, 0), min(last - start, size)
            pieces.append([part[low:high] for part in chunk(number)])
        return tuple(torch.cat(parts) for parts in zip(*pieces, strict=True))

    return between
