from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpbench.core.errors import UserError
from dpbench.core.progress import Silent
from dpbench.data import catalog
from dpbench.data import load as load_module
from dpbench.data.arrays import mapped
from dpbench.data.catalog import CATALOG
from dpbench.data.load import load
from dpbench.data.sets import camelyon
from tests.support.datasets import decoded, edit, encoded, noise, put

CAMELYON_INFO = replace(catalog.CAMELYON17, train=4, validation=2, test=2)
# patient, node, x, y, tumor, slide, center, split: split 0 and 1 occur in every center
PATCHES = [
    ("004", 4, 3328, 21792, 1, 0, 0, 0),
    ("004", 4, 3200, 22272, 0, 0, 0, 1),
    ("020", 2, 96, 128, 1, 4, 1, 0),
    ("020", 2, 96, 160, 0, 4, 1, 1),
    ("040", 1, 32, 64, 0, 9, 2, 0),
    ("040", 1, 32, 96, 1, 9, 2, 1),
    ("060", 3, 64, 64, 0, 14, 3, 0),
    ("080", 0, 64, 96, 1, 19, 4, 0),
    ("080", 0, 64, 128, 0, 19, 4, 0),
]
HEADER = ",patient,node,x_coord,y_coord,tumor,slide,center,split"


def patch_file(folder: Path, patch: Sequence[Any]) -> Path:
    slide = f"patient_{patch[0]}_node_{patch[1]}"
    return folder / "patches" / slide / f"patch_{slide}_x_{patch[2]}_y_{patch[3]}.png"


def write_camelyon(folder: Path) -> Path:
    lines = [HEADER]
    for index, patch in enumerate(PATCHES):
        put(patch_file(folder, patch), encoded(noise(index, 96, 96, 4 if index % 2 else 3)))
        lines.append(",".join(map(str, (index, *patch))))
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("below", [".", "camelyon17_v1.0", "wilds/camelyon17_v1.0"])
def test_camelyon17_has_the_official_splits_of_wilds(root: Path, below: str) -> None:
    write_camelyon(root / below)
    splits = decoded(camelyon.find(root, Silent(), CAMELYON_INFO))
    indices = {"train": [0, 6, 7, 8], "validation": [2, 3], "test": [4, 5]}
    for split, wanted in indices.items():
        assert splits[split].labels.tolist() == [PATCHES[index][4] for index in wanted]
        for pixels, index in zip(splits[split].pixels, wanted, strict=True):
            whole = noise(index, 96, 96, 4 if index % 2 else 3)[..., :3]
            means = whole.reshape(32, 3, 32, 3, 3).mean((1, 3))
            assert np.array_equal(pixels.permute(1, 2, 0).numpy(), means.round())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("y_coord", "y", "has no column y_coord"),
        ("21792,1,0,0,0", "21792,2,0,0,0", "line 2 has tumor 2, .*expected tumor 0 or 1"),
        ("21792,1,0,0,0", "../../21792,1,0,0,0", "line 2 has a patch that is not of numbers"),
        ("21792,1,0,0,0", "21792,1,0,5,0", "line 2 has .*center 5.*center 0 to 4"),
        ("21792,1,0,0,0", "21792,1,0,0,2", "line 2 has .*split 2; .*split 0 or 1"),
        ("21792,1,0,0,0", "21792,1,0,0,1", "holds 3 train images; expected 4, as camelyon17"),
        ("3328", "3329", "patch_patient_004_node_4_x_3329_y_21792.png cannot be read"),
    ],
)
def test_bad_metadata_of_camelyon17_are_named(old: str, new: str, message: str, root: Path) -> None:
    edit(write_camelyon(root) / "metadata.csv", old, new)
    with pytest.raises(UserError, match=message) as error:
        mapped(camelyon.find(root, Silent(), CAMELYON_INFO), Silent())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (encoded(noise(0, 96, 96, 3))[:-2000], "cannot be decoded .*expected an intact PNG"),
        (encoded(noise(0, 96, 96, 3), "JPEG"), "cannot be decoded .*expected an intact PNG"),
        (encoded(noise(0, 32, 32, 3)), "32x32 pixels of mode RGB; expected 96x96"),
    ],
)
def test_bad_patches_of_camelyon17_are_named(content: bytes, message: str, root: Path) -> None:
    file = put(patch_file(write_camelyon(root), PATCHES[7]), content)
    with pytest.raises(UserError, match=message) as error:
        mapped(camelyon.find(root, Silent(), CAMELYON_INFO), Silent())
    assert str(error.value).startswith(str(file))


@pytest.fixture
def small_camelyon(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_camelyon(root)
    monkeypatch.setitem(CATALOG, "camelyon17", CAMELYON_INFO)
    monkeypatch.setitem(
        load_module.ORIGINALS,
        "camelyon17",
        lambda data_root, progress: camelyon.find(data_root, progress, CAMELYON_INFO),
    )
    return root


def test_an_official_validation_split_is_the_validation_split(small_camelyon: Path) -> None:
    dataset = load("camelyon17", small_camelyon, Silent())
    assert dataset.splits.validation is not None
    assert dataset.splits.validation.labels.tolist() == [1, 0]
    assert dataset.source == str(small_camelyon)


def test_images_held_out_take_the_place_of_the_official_validation_split(
    small_camelyon: Path,
) -> None:
    whole = load("camelyon17", small_camelyon, Silent())
    held = load("camelyon17", small_camelyon, Silent(), holdout=1)
    assert held.splits.validation is not None
    assert (len(held.splits.train), len(held.splits.validation)) == (3, 1)
    assert held.content_hash == whole.content_hash
