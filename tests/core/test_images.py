from __future__ import annotations

import torch

from dpbench.core.images import Images, content_hash


def numbered(count: int, shape: tuple[int, int, int]) -> Images:
    pixels = torch.arange(count * 24).to(torch.uint8).reshape(count, *shape)
    return Images(pixels, torch.arange(count) % 5)


def test_the_content_hash_stays_as_it_is() -> None:
    whole = (numbered(10_000, (3, 2, 4)), numbered(6, (3, 2, 4)))
    assert content_hash(*whole).startswith("8a0d23fc43254c79")


def test_the_content_hash_knows_borders_and_every_element() -> None:
    first, second = numbered(10, (3, 2, 4)), numbered(6, (3, 2, 4))
    other_pixel, other_label = first.pixels.clone(), first.labels.clone()
    other_pixel[-1, -1, -1, -1] ^= 1
    other_label[0] += 1
    hashes = {
        content_hash(first, second),
        content_hash(first),
        content_hash(second, first),
        content_hash(Images(other_pixel, first.labels), second),
        content_hash(Images(first.pixels, other_label), second),
        content_hash(numbered(10, (3, 4, 2)), second),
    }
    assert len(hashes) == 6


def test_the_content_hash_is_of_the_images_however_they_lie_in_memory() -> None:
    whole = numbered(10, (3, 2, 4))
    turned = Images(whole.pixels.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0), whole.labels)
    assert not turned.pixels.is_contiguous()
    assert content_hash(turned) == content_hash(whole)
