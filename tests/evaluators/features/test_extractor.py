from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from dpbench.core.cache import Cache
from dpbench.core.images import Images
from dpbench.evaluators.features import extractor


def test_clean_resize_is_no_change_at_the_same_size_and_repeats_grey() -> None:
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, 1, 16, 16), generator=rng, dtype=torch.uint8)
    assert torch.equal(extractor.clean_resize(pixels, 16), pixels.expand(-1, 3, -1, -1).float())
    larger = extractor.clean_resize(pixels, 40)
    assert larger.shape == (2, 3, 40, 40)
    assert not torch.equal(larger, larger.round()), "quantised"
    assert larger.min() >= 0 and larger.max() <= 255


def test_features_computed_on_one_kind_of_device_are_not_used_on_another(tmp_path: Path) -> None:
    images = Images(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))
    computed: list[str] = []

    def cached(device: str) -> float:
        def network(pixels: Tensor) -> Tensor:
            computed.append(device)
            return torch.full((len(pixels), 2), float(len(computed)))

        of = extractor.Extractor("id", 2, network, batch=10)
        found = extractor.cached_features(
            of, images, Cache(tmp_path), torch.device(device), lambda count: None
        )
        return float(found[0, 0])

    assert [cached("cpu"), cached("meta"), cached("cpu")] == [1, 2, 1]
    assert computed == ["cpu", "meta"]
