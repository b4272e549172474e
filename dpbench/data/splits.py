"""Fixed splits that depend on no library's random numbers."""

from __future__ import annotations

import hashlib

from torch import Tensor

from dpbench.core.images import Images


def stratified_order(labels: Tensor) -> list[int]:
    """A fixed permutation in which every run of images has the classes in proportion.

    Within a class, images are ordered by the SHA-256 of their index; then the classes are
    interleaved evenly. The order depends on the labels alone, so it is the same for every seed,
    machine and version of any library.

    Args:
        labels: ``(N,)``, int64.

    Returns:
        The indices 0 to N - 1, permuted.
    """
    members: dict[int, list[int]] = {}
    for index, label in enumerate(labels.tolist()):
        members.setdefault(label, []).append(index)
    places = []
    for label, indices in members.items():
        indices.sort(key=_digest)
        for rank, index in enumerate(indices):
            places.append(((rank + 0.5) / len(indices), label, index))
    return [index for _, _, index in sorted(places)]


def split(images: Images, held_out: int) -> tuple[Images, Images]:
    """All but the last ``held_out`` images of the stratified order, and those; in their old order.

    For public images: the order of all depends on the labels of all.

    Args:
        images: What to split.
        held_out: Size of the second part, 0 to N.

    Returns:
        The two parts.
    """
    return _parts(images, stratified_order(images.labels), held_out)


def hold_out(images: Images, held_out: int) -> tuple[Images, Images]:
    """Split private images so that no image decides about another one.

    The places 0 to N - 1 that are held out are those of the ``held_out`` largest SHA-256, whatever
    is there: an image with another label, or none, in the place of an image leaves all others where
    they are. Classes are in proportion only as far as chance has it.

    Args:
        images: What to split.
        held_out: Size of the second part, 0 to N; a smaller one is part of a larger one.

    Returns:
        The two parts, in their old order.
    """
    return _parts(images, sorted(range(len(images)), key=_digest), held_out)


def _digest(index: int) -> bytes:
    return hashlib.sha256(str(index).encode()).digest()


def _parts(images: Images, order: list[int], held_out: int) -> tuple[Images, Images]:
    border = len(order) - held_out
    return _part(images, order[:border]), _part(images, order[border:])


def _part(images: Images, indices: list[int]) -> Images:
    return images[images.labels.new_tensor(sorted(indices))]
