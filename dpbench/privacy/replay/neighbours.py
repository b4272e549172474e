"""D, and the sets beside it that are looked at."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dpbench.core.images import Images


@dataclass(frozen=True)
class Neighbour:
    """D, or a set beside it.

    Attributes:
        name: How it differs from D.
        images: The images.
        places: ``(N,)``, int64: the place of each image among those of D and, behind them, the one
            that is added. Draws belong to places.
        changed: Places that make the difference between D and a neighbour: in every batch.
        spoiled: Stands for everything computed from the added image (its copies, its features), as
            if they had overflowed; None leaves them.
    """

    name: str
    images: Images
    places: np.ndarray
    changed: tuple[int, ...]
    spoiled: float | None = None


def neighbours(images: Images) -> tuple[Neighbour, ...]:
    """D itself, first, and the neighbours that are looked at.

    Args:
        images: D, of 2 images or more.

    Returns:
        After D: one image less, in the middle and at the end (N - 1 images behind a declared size
        of N); and one more: random pixels, white, black, a checkerboard, and two whose copies and
        features are NaN, and too large to be squared.
    """
    count, shape = len(images), images.spec.shape
    everybody, changed = np.arange(count + 1), (count // 2, count - 1, count)
    rows, columns = torch.arange(shape[1])[:, None], torch.arange(shape[2])
    random = torch.from_numpy(np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8))

    def less(name: str, place: int) -> Neighbour:
        places = np.delete(everybody[:-1], place)
        return Neighbour(name, images[torch.from_numpy(places)], places, changed)

    def more(name: str, pixels: Tensor, spoiled: float | None = None) -> Neighbour:
        every_pixel = torch.cat([images.pixels, pixels.byte().expand(1, *shape)])
        every_label = torch.cat([images.labels, torch.zeros(1, dtype=torch.int64)])
        return Neighbour(name, Images(every_pixel, every_label), everybody, changed, spoiled)

    return (
        Neighbour("D", images, everybody[:-1], changed),
        less("one removed", count // 2),
        less("last removed", count - 1),
        more("random added", random),
        more("white added", torch.tensor(255)),
        more("black added", torch.tensor(0)),
        more("checkerboard added", 255 * ((rows + columns) % 2)),
        more("NaN added", random, math.nan),
        more("overflow added", random, 1e30),
    )
