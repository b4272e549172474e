"""Fixed splits, which depend on no library's random numbers."""

from __future__ import annotations

import torch
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
    """Split private images so that no image decides where another one goes.

    The held-out indices are those with the ``held_out`` largest SHA-256, whatever the images: to
    replace the image at an index, or its label, moves no other image. Classes are in proportion up
    to chance only.

    Args:
        images: What to split.
        held_out: Size of the second part, 0 to N; a smaller part is a subset of a larger one.

    Returns:
        The two parts, each in the original order.
    """
    order = sorted(range(len(images)), key=index_digest)
    return _parts(images, images.labels.new_tensor(order), held_out)


def tested_in_every_class(labels: Tensor, count: int) -> Tensor:
    """Choose images for testing, stratified by class, from a data set of which all is given.

    Where classes have equal claims, a digest decides and not their order; every class of two
    images or more has one at least, even where that makes more than ``count``.

    Args:
        labels: ``(N,)``, int64.
        count: How many to choose, 0 to N.

    Returns:
        Indices of ``labels``, sorted.
    """
    order = fixed_stratified_order(labels, spread=True)
    chosen = set(order[len(order) - count :].tolist())
    last, sizes = {}, labels.bincount().tolist()
    for index in order.tolist():
        last[int(labels[index])] = index
    tested = {int(labels[index]) for index in chosen}
    chosen |= {last[label] for label in last if label not in tested and sizes[label] > 1}
    return torch.tensor(sorted(chosen), dtype=torch.int64)


def _parts(images: Images, order: Tensor, held_out: int) -> tuple[Images, Images]:
    border = len(order) - held_out
    return images[order[:border].sort().values], images[order[border:].sort().values]
