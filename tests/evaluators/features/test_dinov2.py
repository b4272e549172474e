from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

from dpbench.core.errors import UserError
from dpbench.core.images import Images
from dpbench.evaluators import fidelity
from dpbench.evaluators.features import dinov2, metrics
from tests.support.digits import CPU, DIGITS, Bomb, evaluation


def rgb(images: Images) -> Images:
    return Images(images.pixels.repeat(1, 3, 1, 1), images.labels)


def test_dinov2_measures_rgb_images_with_weights_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = dict.fromkeys(("train", "test"), rgb(DIGITS.test[:12])) | {
        "synthetic": rgb(DIGITS.train[:12])
    }
    # a network of the same kind that is small
    monkeypatch.setattr(dinov2, "MODEL", "test_vit")
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), tmp_path / "vit.pth")
    extractor = dinov2.dinov2_extractor(tmp_path / "vit.pth", CPU)
    comparisons = [replace(c, more_than=1) for c in metrics.IN_DINOV2]
    context = evaluation(sets["synthetic"], tmp_path)
    to_test, to_train = fidelity.measure(context, sets, comparisons, lambda: extractor)
    assert to_test.value > 0
    assert (to_test.metric, to_test.split, to_train.split) == ("fd_dinov2", "test", "train")
    assert to_test.extractor.startswith("dinov2-vitl14-clean224-")
    (tmp_path / "junk.pth").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded"), protocol=2))
    for name in ("absent.pth", "junk.pth"):
        with pytest.raises(UserError, match=f"DPBENCH_DINOV2 names .*{name}"):
            dinov2.dinov2_extractor(tmp_path / name, CPU)
    assert not (tmp_path / "exploded").exists()
