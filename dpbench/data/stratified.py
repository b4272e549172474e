"""Orders of images in which every prefix has the classes in their proportions, to within one image.

Prefixes of one order are nested subsets, so a smaller stratified subset is part of a larger one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor


def fixed_stratified_order(labels: Tensor, spread: bool = False) -> Tensor:
    """Stratified permutation that depends on the labels alone: the same on every machine.

    Within a class, images are ordered by ``index_digest``; then the classes are interleaved evenly.

    Args:
        labels: ``(N,)``, int64.
        spread: Where several classes are due, the first is that of the smallest ``index_digest`` of
            the image, and not that of the lowest label: a tail then favours no class.

    Returns:
        ``(N,)``, int64: indices of ``labels``.
    """

    def by_digest(members: Tensor) -> Tensor:
        return members.new_tensor(sorted(members.tolist(), key=index_digest))

    places = _places(labels, by_digest)
    everyone = torch.arange(len(labels))
    first = by_digest(everyone) if spread else labels.argsort(stable=True)
    return first[places[first].argsort(stable=True)]


def random_stratified_order(labels: Tensor, rng: torch.Generator) -> Tensor:
    """Stratified permutation that is random within each class.

    Args:
        labels: ``(N,)``, int64.
        rng: Random generator of the order, on the CPU.

    Returns:
        ``(N,)``, int64: indices of ``labels``.
    """

    def shuffled(members: Tensor) -> Tensor:
        return members[torch.randperm(len(members), generator=rng).argsort()]

    return _places(labels, shuffled).argsort(stable=True)


def index_digest(index: int) -> bytes:
    """SHA-256 of an index in decimal: sorting by it shuffles without a random generator."""
    return hashlib.sha256(str(index).encode()).digest()


def _places(labels: Tensor, ordered: Callable[[Tensor], Tensor]) -> Tensor:
    """Where each image stands in [0, 1], when each class is spread evenly over that interval."""
    places = torch.empty(len(labels), dtype=torch.float64)
    for label in sorted(set(labels.tolist())):
        members = ordered((labels == label).nonzero().squeeze(1))
        ranks = torch.arange(len(members), dtype=torch.float64)
        places[members] = (ranks + 0.5) / len(members)
    return places
