"""Fixed splits that depend on no library's random numbers."""

from __future__ import annotations

from torch import Tensor

from dpbench.core.images import Images
from dpbench.data.stratified import fixed_stratified_order, index_digest


def split(images: Images, held_out: int) -> tuple[Images, Images]:
    """Split public images into all but the last ``held_out`` of the stratified order, and those.

    For public images only: the order of all depends on the labels of all.

    Args:
        images: What to split.
        held_out: Size of the second part, 0 to N.

    Returns:
        The two parts, each in the original order.
    """
    return _parts(images, fixed_stratified_order(images.labels), held_out)


def hold_out(images: Images, held_out: int) -> tuple[Images, Images]:
    """Split private images so that no image decides about another one.

    The places 0 to N - 1 that are held out are those of the ``held_out`` largest SHA-256, whatever
    is there: an image with another label, or none, in the place of an image leaves all others where
    they are. Classes are in proportion only as far as chance has it.

    Args:
        images: What to split.
        held_out: Size of the second part, 0 to N; a smaller one is part of a larger one.

    Returns:
        The two parts, each in the original order.
    """
    order = sorted(range(len(images)), key=index_digest)
    return _parts(images, images.labels.new_tensor(order), held_out)


def _parts(images: Images, order: Tensor, held_out: int) -> tuple[Images, Images]:
    border = len(order) - held_out
    return images[order[:border].sort().values], images[order[border:].sort().values]
