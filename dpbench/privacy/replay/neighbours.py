"""The data set D, and the neighbours and strangers that it is compared with."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dpbench.core.images import Images

RESUMED = "D, resumed halfway"


@dataclass(frozen=True)
class Neighbour:
    """D, a neighbour of D, or a set that has nothing in common with D.

    Attributes:
        name: How the set differs from D.
        images: Images of the set.
        places: ``(N,)``, int64: the place of each image in D; an added image has the place after
            the last one. Random draws belong to places.
        changed: Places at which any of the neighbours differs from D. They are in every batch.
        spoiled: Value that replaces everything computed from the added image (its copies and
            features), as if it had overflowed; None replaces nothing.
        strange: Whether the set shares no image with D. Its releases may then be anything; as they
            are replaced by those of D, all else must be as on D.
        interrupted: Whether the fit is interrupted when half of the releases are made, and resumed.
    """

    name: str
    images: Images
    places: np.ndarray
    changed: tuple[int, ...]
    spoiled: float | None = None
    strange: bool = False
    interrupted: bool = False


def neighbours(images: Images) -> tuple[Neighbour, ...]:
    """D, followed by its neighbours.

    Args:
        images: D, at least 2 images.

    Returns:
        D; D again, for a fit that is interrupted and resumed; two sets with one image less, from
        the middle and from the end (N - 1 images where N are declared); sets with one image more:
        random pixels, white, black, a checkerboard, and two random images whose copies and features
        are NaN or too large to be squared; and two sets that share no image with D: as many images
        of random pixels in one class, and none at all.
    """
    count, shape = len(images), images.spec.shape
    everybody, changed = np.arange(count + 1), (count // 2, count - 1, count)
    rows, columns = torch.arange(shape[1])[:, None], torch.arange(shape[2])
    rng = np.random.default_rng(0)
    random = torch.from_numpy(rng.integers(256, size=shape, dtype=np.uint8))
    others = torch.from_numpy(rng.integers(256, size=images.pixels.shape, dtype=np.uint8))
    strangers = Images(others, images.labels[:1].expand(count).clone())

    def less(name: str, place: int) -> Neighbour:
        places = np.delete(everybody[:-1], place)
        return Neighbour(name, images[torch.from_numpy(places)], places, changed)

    def more(name: str, pixels: Tensor, spoiled: float | None = None) -> Neighbour:
        every_pixel = torch.cat([images.pixels, pixels.byte().expand(1, *shape)])
        every_label = torch.cat([images.labels, torch.zeros(1, dtype=torch.int64)])
        return Neighbour(name, Images(every_pixel, every_label), everybody, changed, spoiled)

    return (
        Neighbour("D", images, everybody[:-1], changed),
        Neighbour(RESUMED, images, everybody[:-1], changed, interrupted=True),
        less("one removed", count // 2),
        less("last removed", count - 1),
        more("random added", random),
        more("white added", torch.tensor(255)),
        more("black added", torch.tensor(0)),
        more("checkerboard added", 255 * ((rows + columns) % 2)),
        more("NaN added", random, math.nan),
        more("overflow added", random, 1e30),
        Neighbour("only strangers", strangers, everybody[:-1], changed, strange=True),
        Neighbour("nobody", images[:0], everybody[:0], changed, strange=True),
    )
