"""The loss of a classifier, for private training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from dpbench.core.pixels import from_pixels
from dpbench.privacy.clipping import Predict, as_rows, of_examples


@dataclass(frozen=True)
class Classification:
    """Cross-entropy, averaged over K copies of an image (De et al. 2022, section 3.2).

    Attributes:
        multiplicity: K.
        mirror: Whether each copy is mirrored with probability 1/2; otherwise copies are equal.
    """

    multiplicity: int
    mirror: bool

    def draw(self, pixels: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, ...]:
        """Return images ``(B, K, C, H, W)`` and labels ``(B, K)``."""
        shape = (len(pixels), self.multiplicity)
        copies = from_pixels(pixels)[:, None].expand(*shape, *pixels.shape[1:])
        if self.mirror:
            mirrored = torch.rand(shape, generator=rng, device=pixels.device) < 0.5
            copies = torch.where(mirrored[:, :, None, None, None], copies.flip(-1), copies)
        return copies, labels[:, None].expand(shape)

    def loss(self, predict: Predict, *copies: Tensor) -> Tensor:
        """Return the mean loss of each image over its copies, ``(B,)``."""
        images, labels = copies
        logits = predict(as_rows(images))
        losses = functional.cross_entropy(logits, as_rows(labels), reduction="none")
        return of_examples(losses, len(labels)).mean(dim=1)
