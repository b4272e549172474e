from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dpbench.core.errors import UserError
from dpbench.core.progress import Silent
from dpbench.data import catalog
from dpbench.data.arrays import mapped
from dpbench.data.load import load
from dpbench.data.sets import imagenet32
from tests.support.datasets import decoded, noise, put

IMAGENET_INFO = replace(catalog.IMAGENET32, train=20, test=3)


def write_imagenet(folder: Path, first: int = 1) -> Path:
    for number, name in enumerate([*imagenet32.BATCHES["train"], "val_data"]):
        count = 3 if name == "val_data" else 2
        labels = [first + number, first + 999, first + 500][:count]
        content = {"data": noise(number, count, 3072), "labels": labels, "mean": np.zeros(3072)}
        put(folder / name, pickle.dumps(content, 3))
    return folder


@pytest.mark.parametrize("below", [".", "imagenet32", "Imagenet32"])
def test_imagenet32_labels_begin_at_one_in_the_files_and_at_zero_here(
    root: Path, below: str
) -> None:
    write_imagenet(root / below)
    splits = decoded(imagenet32.find(root, Silent(), IMAGENET_INFO))
    assert splits["train"].labels.tolist() == [x for batch in range(10) for x in (batch, 999)]
    assert splits["test"].labels.tolist() == [10, 999, 500]
    assert np.array_equal(splits["train"].pixels[18:], noise(9, 2, 3, 32, 32))


def test_imagenet32_with_labels_from_zero_is_refused(root: Path) -> None:
    write_imagenet(root, first=0)
    with pytest.raises(UserError, match="label 0; expected labels 1 to 1000"):
        mapped(imagenet32.find(root, Silent(), IMAGENET_INFO), Silent())


def test_imagenet64_is_no_imagenet32(root: Path) -> None:
    write_imagenet(root)
    content = {"data": noise(0, 2, 64 * 64 * 3), "labels": [1, 2]}
    put(root / "train_data_batch_1", pickle.dumps(content, 3))
    with pytest.raises(UserError, match="batch_1 .*2x12288; expected 3072 bytes"):
        mapped(imagenet32.find(root, Silent(), IMAGENET_INFO), Silent())


def test_a_part_of_imagenet32_is_refused(root: Path) -> None:
    write_imagenet(root)
    with pytest.raises(UserError, match="20 train images; expected 1281167, as imagenet32 has"):
        load("imagenet32", root, Silent())


def test_the_environment_may_name_the_data_root(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_imagenet(root)
    monkeypatch.setenv("DPBENCH_DATA", str(root))
    assert imagenet32.find(None, Silent(), IMAGENET_INFO).folder == root
