from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.utils import make_grid

from dpbench.core.pixels import save_grid


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_is_that_of_torchvision_enlarged(channels: int, tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    shape = (7, channels, 5, 4)
    pixels = torch.randint(256, shape, generator=rng, dtype=torch.uint8)
    save_grid(pixels, 3, tmp_path / "grid.png", scale=2)
    theirs = make_grid(pixels, nrow=3, padding=1, pad_value=255).permute(1, 2, 0).numpy()
    with Image.open(tmp_path / "grid.png") as picture:
        ours = np.asarray(picture)
    assert np.array_equal(ours, theirs.repeat(2, axis=0).repeat(2, axis=1))
