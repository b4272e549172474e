from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch

from dpbench.core.images import Images
from dpbench.data.splits import hold_out, split
from dpbench.data.stratified import fixed_stratified_order


def uneven_images() -> Images:
    labels = torch.arange(10).repeat_interleave(torch.arange(10, 110, 10))
    return Images(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), labels)


def test_a_split_is_stratified_disjoint_and_whole() -> None:
    images = uneven_images()
    images.pixels[:, 0, 0, 0] = torch.arange(550) % 256
    images.pixels[:, 0, 0, 1] = torch.arange(550) // 256
    kept, held_out = split(images, 55)
    assert (held_out.labels.bincount() - torch.arange(1, 11)).abs().max() <= 1
    both = torch.cat([kept.pixels, held_out.pixels]).flatten(1).unique(dim=0)
    assert len(kept) == 495
    assert len(both) == 550


def test_a_smaller_holdout_is_part_of_a_larger_one() -> None:
    order = fixed_stratified_order(uneven_images().labels).tolist()
    images = Images(torch.zeros(550, 1, 1, 1, dtype=torch.uint8), uneven_images().labels)
    small, large = split(images, 20)[1], split(images, 40)[1]
    assert small.labels.tolist() == images.labels[sorted(order[-20:])].tolist()
    assert large.labels.tolist() == images.labels[sorted(order[-40:])].tolist()


def numbered(labels: torch.Tensor) -> Images:
    """Images that hold their own number."""
    pixels = torch.zeros(len(labels), 1, 1, 2, dtype=torch.uint8)
    pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = torch.arange(550) % 256, torch.arange(550) // 256
    return Images(pixels, labels)


def numbers(images: Images) -> set[int]:
    return set((images.pixels[:, 0, 0, 0].int() + 256 * images.pixels[:, 0, 0, 1].int()).tolist())


Splitting = Callable[[Images, int], tuple[Images, Images]]


def moved_by_one_label(splitting: Splitting) -> int:
    """How many images change sides when one image of 550 has another label, at most."""
    labels = uneven_images().labels
    before = numbers(splitting(numbered(labels), 55)[1])
    moved = []
    for place in range(0, 550, 50):
        other = labels.clone()
        other[place] = 9 - other[place]
        moved.append(len(before ^ numbers(splitting(numbered(other), 55)[1])))
    return max(moved)


def test_no_image_decides_about_another_being_held_out() -> None:
    assert moved_by_one_label(hold_out) == 0
    assert moved_by_one_label(split) > 0, "the stratified order must be caught"


def test_what_is_held_out_is_disjoint_whole_and_grows() -> None:
    images = numbered(uneven_images().labels)
    kept, held = map(numbers, hold_out(images, 55))
    assert (len(kept), len(held), len(kept | held)) == (495, 55, 550)
    assert held < numbers(hold_out(images, 56)[1])
    digests = {hashlib.sha256(str(place).encode()).digest(): place for place in range(550)}
    assert held == {digests[digest] for digest in sorted(digests)[-55:]}


def test_held_out_classes_are_roughly_in_proportion() -> None:
    images = Images(torch.zeros(5_000, 1, 1, 1, dtype=torch.uint8), torch.arange(5_000) % 10)
    counts = hold_out(images, 1_000)[1].labels.bincount()
    # the counts are hypergeometric with mean 100 and standard deviation 8.5
    assert (counts - 100).abs().max() < 4 * 8.5
