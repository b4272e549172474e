"""Whether public images are private ones: exactly, flipped, or encoded again.

Public images are compared in the shape in which methods see them. Images of one intensity are left
out, since they are nobody's. What is not seen: copies that were turned, shifted, cropped, inverted
or changed by more than an encoding or an enlargement, and few copies of the latter kind among many.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (its customary name)
from numpy.typing import NDArray
from torch import Tensor

from dpbench.core.errors import UserError
from dpbench.core.pixels import image_digests

COMPARED_AT_ONCE = 4096
# Near copies: of so many private images, spread over the set, the nearest public image is sought.
SOUGHT = 500
SIDE = 8  # images are compared as grey pictures of this size, of mean 0 and norm 1
# A copy is much nearer than the next image: 1 - correlation is this part of that image's, at most.
# Measured on the digits and 6,000 images of Fashion-MNIST: so for at most 2% of the images and
# others of their set, and for 90% or more and their copies as JPEG of quality 50 or enlarged.
NEARER = 0.35
COPIED = 0.2  # share of the sought images that have such a copy, from which on a set is refused
FEWEST = 200  # public images; among fewer, the nearest one may be much nearer by chance


def check_apart(name: str, public: Iterable[Tensor], private: Tensor) -> None:
    """Check that public images are not the private ones; raise if some are.

    Args:
        name: Name of the public images, for the message.
        public: Parts of the public images, ``(n, C, H, W)``, uint8, in the private images' shape.
        private: ``(N, C, H, W)``, uint8: the private train images.

    Raises:
        UserError: A public image is a private one or its mirror image, or the public images hold
            near copies of the private ones.
    """
    own = np.unique(np.concatenate([_digests(private), _digests(private, mirrored=True)]))
    sought = _sought(private)
    near = _Nearest(torch.cat([sought, sought.flip(3)]))
    count = copies = 0
    for part in public:
        count += len(part)
        copies += int(np.isin(_digests(part), own).sum())
        near.see(part)
    if copies:
        raise UserError(
            f"{name} holds private images: {copies:,} of its {count:,} are train images of the "
            "private set, or their mirror images: --public takes others"
        )
    share = near.copied()
    if count >= FEWEST and share >= COPIED:
        raise UserError(
            f"{name} holds private images that were encoded or resized again: of "
            f"{len(sought):,} train images of the private set, {share:.0%} have a near copy there: "
            "--public takes others"
        )


def _plain(images: Tensor) -> Tensor:
    """``(N,)``, bool: whether an image has one intensity only."""
    flat = images.flatten(1)
    return (flat == flat[:, :1]).all(1)


def _digests(images: Tensor, mirrored: bool = False) -> NDArray[np.uint64]:
    """Digests of the images that have more than one intensity."""
    parts = torch.split(images, COMPARED_AT_ONCE)
    found = [image_digests(part[~_plain(part)], mirrored) for part in parts]
    return np.concatenate([np.empty(0, np.uint64), *found])


def _sought(private: Tensor) -> Tensor:
    chosen = private[torch.linspace(0, len(private) - 1, min(SOUGHT, len(private))).long()]
    return chosen[~_plain(chosen)]


def _described(images: Tensor) -> Tensor:
    """``(N, SIDE * SIDE)``: small grey pictures of mean 0 and norm 1."""
    grey = images.float().mean(1, keepdim=True)
    small = F.adaptive_avg_pool2d(grey, SIDE).flatten(1)
    small = small - small.mean(1, keepdim=True)
    return F.normalize(small, eps=1e-6)


class _Nearest:
    """The two nearest of all images that were seen, for each image that is sought.

    Args:
        sought: ``(2 S, C, H, W)``, uint8: images, and then their mirror images.
    """

    def __init__(self, sought: Tensor) -> None:
        self._sought = _described(sought)
        self._two = torch.full((len(sought), 2), -1.0)  # correlations, the larger first

    def see(self, images: Tensor) -> None:
        """Take some images into account."""
        for part in torch.split(images, COMPARED_AT_ONCE):
            correlations = torch.cat([self._two, self._sought @ _described(part).T], 1)
            self._two = correlations.topk(2).values

    def copied(self) -> float:
        """Share of the images of which they, or their mirror images, have a near copy."""
        if not len(self._two):
            return 0.0
        first, second = (1 - self._two).clamp_min(1e-6).T
        return float((first <= NEARER * second).view(2, -1).any(0).float().mean())
