from __future__ import annotations

import torch

from dpbench.evaluators.features import extractor


def test_clean_resize_is_no_change_at_the_same_size_and_repeats_grey() -> None:
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, 1, 16, 16), generator=rng, dtype=torch.uint8)
    assert torch.equal(extractor.clean_resize(pixels, 16), pixels.expand(-1, 3, -1, -1).float())
    larger = extractor.clean_resize(pixels, 40)
    assert larger.shape == (2, 3, 40, 40)
    assert not torch.equal(larger, larger.round()), "quantised"
    assert larger.min() >= 0 and larger.max() <= 255
