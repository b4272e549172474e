from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpbench.core.images import Images
from dpbench.evaluators.cas_predictor import CasPredictor


def test_what_was_predicted_is_kept_for_intervals_and_comparisons() -> None:
    class Ones:
        def predict(self, pixels: Tensor) -> Tensor:
            return torch.tensor([[0.0, 1.0, 0.0]]).expand(len(pixels), -1)

    labels = torch.tensor([1, 0, 1, 2])
    kept: dict[str, Any] = {}
    case: Any = SimpleNamespace(
        predictor=Ones(),
        open_real=lambda need: Images(torch.zeros(4, 1, 4, 4, dtype=torch.uint8), labels),
        keep=kept.update,
    )
    (row,) = CasPredictor().evaluate(case)
    assert row.value == 50
    assert sorted(kept) == ["cas_predictor", "labels"]
    assert row.value == 100 * np.mean(kept["cas_predictor"] == kept["labels"])
