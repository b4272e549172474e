"""Folders that could be read in more than one way."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dpbench.core.errors import UserError
from dpbench.core.progress import Silent
from dpbench.data.catalog import DIGITS, FASHIONMNIST, DatasetInfo
from dpbench.data.formats import layouts
from dpbench.data.load import find_info, load
from tests.support.datasets import encoded, noise, put

AGES = replace(DIGITS, name="ages", classes=2, class_names=("<40", ">40"))
FROM_ONE = replace(DIGITS, name="months", classes=12, class_names=tuple(map(str, range(1, 13))))


def write(folder: Path, kinds: Iterable[str], count: int = 2) -> Path:
    """Folders of distinct images, by class."""
    for number, kind in enumerate(kinds):
        for each in range(count):
            put(folder / kind / f"{each:02}.png", encoded(noise(100 * number + each, 4, 4)))
    return folder


def make(folder: Path, kinds: Iterable[str]) -> Path:
    for kind in kinds:
        (folder / kind).mkdir(parents=True)
    return folder


# --- classes and their labels


def test_classes_that_are_numbers_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    write(tmp_path / "months", map(str, range(12)), 1)
    info = find_info(f"imagefolder:{tmp_path / 'months'}")
    assert info.class_names == tuple(map(str, range(12)))
    labels = load(f"imagefolder:{tmp_path / 'months'}", None, Silent()).splits.train.labels
    assert labels.max() == 11


def test_other_names_are_in_the_order_of_strings(tmp_path: Path) -> None:
    write(tmp_path, ["k1", "k10", "k2", "2"], 5)
    assert find_info(f"imagefolder:{tmp_path}").class_names == ("2", "k1", "k10", "k2")


def test_two_names_of_one_number_are_refused(tmp_path: Path) -> None:
    write(tmp_path, ["1", "01", "2"], 5)
    with pytest.raises(UserError, match="two classes of one number: 01, 1, 2"):
        find_info(f"imagefolder:{tmp_path}")


@pytest.mark.parametrize(
    ("info", "kinds", "labels"),
    [
        (AGES, [">40", "<40"], [0, 1]),
        (AGES, ["0", "1"], [0, 1]),
        (FASHIONMNIST, ["Ankle boot", "T-shirt-top"], [9, 0]),
        (DIGITS, ["03", "7"], [3, 7]),
        (FROM_ONE, ["1", "12"], [0, 11]),
        (FROM_ONE, ["01", "12"], [0, 11]),
    ],
)
def test_folders_of_samples_are_named_after_classes_or_numbers(
    info: DatasetInfo, kinds: list[str], labels: list[int], tmp_path: Path
) -> None:
    found = layouts.labels_of_samples(make(tmp_path, kinds), info)
    assert [found[kind] for kind in sorted(kinds)] == labels


@pytest.mark.parametrize(
    ("info", "kinds", "message"),
    [
        (AGES, ["-40"], "-40 may stand for '<40' or '>40'"),
        (replace(AGES, class_names=("<40", "-40+")), ["<40", "-40"], "both stand for the class"),
        (DIGITS, ["3", "03"], "has 03 and 3, which both stand for the class '3'"),
        (FROM_ONE, ["0", "1"], "has 0; expected folders named after the classes"),
        (replace(AGES, class_names=("1", "b")), ["0"], "has 0; .*classes of ages .1, b.$"),
        (AGES, ["1", ">40"], "names and numbers together"),
    ],
)
def test_a_folder_of_samples_that_is_a_guess_is_refused(
    info: DatasetInfo, kinds: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        layouts.labels_of_samples(make(tmp_path, kinds), info)


def test_names_that_records_cannot_keep_are_refused_at_the_door(tmp_path: Path) -> None:
    bad = os.fsdecode(b"caf\xe9")
    write(tmp_path / "good", ["a", bad], 5)
    write(tmp_path / bad, "ab", 5)
    (tmp_path / "link").symlink_to(tmp_path / bad)
    for name in ("good", bad, "link"):
        with pytest.raises(UserError, match="udce9', is no UTF-8"):
            find_info(f"imagefolder:{tmp_path / name}")


# --- splits


def test_validation_images_are_used(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("test", 2), ("val", 1)):
        write(tmp_path / split, "ab", count)
    dataset = load(f"imagefolder:{tmp_path}", None, Silent())
    assert dataset.splits.validation is not None and len(dataset.splits.validation) == 2
    assert (dataset.info.train, dataset.info.test, dataset.info.validation) == (6, 4, 2)
    assert "with test and train and val as they are given" in dataset.info.description


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("train", "test"), "test, train, where test and train hold no folders of classes"),
        (("train", "val"), "train, val, where train and val hold no"),
        (
            ("train/a", "val/a"),
            "holds the folders train, val; expected train, test and perhaps val",
        ),
        (("train/a", "test"), "where test hold no folders of classes"),
        (("train/a", "test/a", "extra"), "nothing beside them"),
        (("train/a", "test/a", "val"), "where val hold no folders"),
        (("Train/a", "Test/a"), "holds the folders Test, Train; expected train, test"),
        (("train/a", "test/a", "dev/a"), "holds the folders dev, test, train"),
        (("train/a", "cat"), "holds the folders cat, train"),
        (("train",), "where train hold no folders"),
    ],
)
def test_splits_that_are_none_are_refused(
    folders: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    write(tmp_path, folders, 20)
    with pytest.raises(UserError, match=message):
        find_info(f"imagefolder:{tmp_path}")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write(tmp_path, ["bus", "train"], 5)
    assert find_info(f"imagefolder:{tmp_path}").class_names == ("bus", "train")


# --- what is not regular


@pytest.mark.parametrize("at", ["a/00.png", "b/01.png"], ids=["first", "later"])
@pytest.mark.parametrize("kind", ["pipe", "zeros", "folder"])
def test_only_regular_files_are_images(at: str, kind: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "set", "ab", 5)
    (folder / at).unlink()
    if kind == "pipe":
        os.mkfifo(folder / at)
    elif kind == "zeros":
        (folder / at).symlink_to("/dev/zero")
    else:
        (folder / at).mkdir()
    with pytest.raises(UserError, match=f"{at} is no regular file"):
        load(f"imagefolder:{folder}", None, Silent())


def test_large_images_are_refused_from_the_first_header(tmp_path: Path) -> None:
    write(tmp_path, "ab", 5)
    put(tmp_path / "a" / "00.png", encoded(np.zeros((4, 9000), np.uint8)))
    with pytest.raises(UserError, match="9000x4 pixels; expected at most 256 on a side"):
        find_info(f"imagefolder:{tmp_path}")
