from __future__ import annotations

import pytest
import torch

from dpbench.training.augmentation import Augmentation
from tests.support.private import rng


@pytest.mark.parametrize("augmentation", [Augmentation(flip=True), Augmentation(crop=2)])
def test_an_augmentation_moves_pixels_and_pads_with_black(augmentation):
    images = torch.zeros(400, 1, 5, 5)
    images[:, 0, 2, 1] = 1.0  # one bright pixel, off the middle
    changed = augmentation(images, rng())
    assert changed.shape == images.shape
    places = (changed[:, 0] == 1.0).nonzero()
    if augmentation.flip:
        assert {tuple(place) for place in places[:, 1:].tolist()} == {(2, 1), (2, 3)}
        assert (places[:, 2] == 1).float().mean().item() == pytest.approx(0.5, abs=0.1)
        assert changed.min() == 0
    else:
        rows, columns = places[:, 1], places[:, 2]
        assert (rows.min(), rows.max()) == (0, 4)
        assert (columns.min(), columns.max()) == (0, 3)  # further left it is cropped away
        assert changed.unique().tolist() == [-1.0, 0.0, 1.0]


def test_colors_change_within_their_range_and_each_image_by_itself() -> None:
    images = torch.rand(50, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    rng = torch.Generator().manual_seed(1)
    changed = Augmentation(color=0.2)(images, rng)
    assert changed.min() >= -1 and changed.max() <= 1
    grey = torch.zeros(50, 3, 4, 4)
    brightness = Augmentation(color=0.2)(grey, rng) + 1
    assert 0.8 <= brightness.min() < 0.9 and 1.1 < brightness.max() <= 1.2
    assert len({round(value, 6) for value in brightness[:, 0, 0, 0].tolist()}) == 50
