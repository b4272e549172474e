from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpbench.core.errors import UserError
from dpbench.core.progress import Silent
from dpbench.data import catalog
from dpbench.data.formats import folders
from dpbench.data.load import find_info, load
from dpbench.records.run_record import RunSpec
from tests.support.command import Command
from tests.support.datasets import encoded, noise, put

KINDS = ("cat", "dog", "owl")


def write_folder(folder: Path, counts: Sequence[int] = (20, 10, 10), grey: bool = False) -> Path:
    seed = 0
    for kind, count in zip(KINDS, counts, strict=True):
        for number in range(count):
            pixels = noise(seed, 6, 5) if grey else noise(seed, 6, 5, 3)
            put(folder / kind / f"{number:03}.png", encoded(pixels))
            seed += 1
    return folder


def info_of(folder: Path) -> catalog.DatasetInfo:
    return find_info(f"imagefolder:{folder}")


@pytest.mark.parametrize(("grey", "shape"), [(False, (3, 6, 5)), (True, (1, 6, 5))])
def test_a_folder_of_classes_is_a_data_set(
    tmp_path: Path, grey: bool, shape: tuple[int, int, int]
) -> None:
    folder = write_folder(tmp_path / "pets", grey=grey)
    dataset = load(f"imagefolder:{folder}", None, Silent())
    assert dataset.info == info_of(folder)
    assert dataset.info.name == "imagefolder:pets"
    assert (dataset.info.shape, dataset.info.class_names) == (shape, KINDS)
    assert (dataset.info.train, dataset.info.test, dataset.info.classes) == (36, 4, 3)
    assert dataset.splits.validation is None
    train, test = dataset.splits.train, dataset.splits.test
    assert train.labels.bincount().tolist() == [18, 9, 9]
    assert test.labels.bincount().tolist() == [2, 1, 1]
    every = {tuple(pixels.flatten().tolist()) for pixels in (*train.pixels, *test.pixels)}
    wanted = (noise(seed, *((6, 5) if grey else (6, 5, 3))) for seed in range(40))
    assert every == {
        tuple(np.atleast_3d(pixels).transpose(2, 0, 1).flatten().tolist()) for pixels in wanted
    }


def test_a_folder_may_say_what_is_for_testing(tmp_path: Path) -> None:
    write_folder(tmp_path / "pets" / "train", (3, 2, 1))
    write_folder(tmp_path / "pets" / "test", (1, 1, 2))
    dataset = load(f"imagefolder:{tmp_path / 'pets'}", None, Silent())
    assert dataset.splits.train.labels.tolist() == [0, 0, 0, 1, 1, 2]
    assert dataset.splits.test.labels.tolist() == [0, 1, 2, 2]
    assert dataset.info.classes == 3


def test_every_class_is_tested_and_none_is_favoured_by_its_name(tmp_path: Path) -> None:
    for kind in range(20):
        for number in range(5):
            put(tmp_path / f"k{kind:02}" / f"{number}.png", encoded(noise(kind, 4, 4)))
    info = info_of(tmp_path)
    assert (info.train, info.test) == (80, 20)
    put(tmp_path / "single" / "0.png", encoded(noise(0, 4, 4)))
    dataset = load(f"imagefolder:{tmp_path}", None, Silent())
    assert dataset.splits.test.labels.tolist() == list(range(20)), "a single image is for training"
    assert "about a tenth of them held out" in dataset.info.description


def test_jpeg_files_and_hidden_files_are_no_matter(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pets")
    put(folder / "cat" / "999.JPG", encoded(noise(0, 6, 5, 3), "JPEG"))
    put(folder / "cat" / ".DS_Store", b"")
    put(folder / "README.md", b"")
    dataset = load(f"imagefolder:{folder}", None, Silent())
    assert len(dataset.splits.train) + len(dataset.splits.test) == 41


def test_the_content_hash_tells_folders_of_one_name_apart(tmp_path: Path) -> None:
    first = write_folder(tmp_path / "a" / "pets")
    second = write_folder(tmp_path / "b" / "pets")
    put(second / "owl" / "003.png", encoded(noise(99, 6, 5, 3)))
    loaded = [load(f"imagefolder:{folder}", None, Silent()) for folder in (first, second)]
    assert loaded[0].info == loaded[1].info
    assert loaded[0].content_hash != loaded[1].content_hash


def test_folders_of_one_archive_do_not_share_a_cache(tmp_path: Path) -> None:
    """The same name, and files of the same names, sizes and restored times of modification."""
    hashes = set()
    for place in "ab":
        folder = tmp_path / place / "pets"
        for number in range(10):
            pixels = noise(number + 10 * (place == "b"), 6, 5, 3)
            file = put(folder / "cat" / f"{number}.png", encoded(pixels, compress_level=0))
            os.utime(file, ns=(0, 0))
        hashes.add(load(f"imagefolder:{folder}", None, Silent()).content_hash)
    assert len(hashes) == 2


def test_a_name_too_long_for_a_folder_of_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="more than 200 bytes"):
        info_of(write_folder(tmp_path / ("é" * 101)))


def test_a_changed_image_is_noticed(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pets")
    before = load(f"imagefolder:{folder}", None, Silent()).content_hash
    put(folder / "owl" / "003.png", encoded(noise(99, 6, 5, 3), compress_level=0))
    assert load(f"imagefolder:{folder}", None, Silent()).content_hash != before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dog/004.png", encoded(noise(0, 5, 6, 3)), "6x5 pixels of mode RGB; expected 5x6"),
        ("dog/004.png", encoded(noise(0, 6, 5)), "of mode L; expected 5x6 pixels of mode RGB"),
        ("dog/004.png", encoded(noise(0, 6, 5, 4)), "of mode RGBA; expected .* mode RGB"),
        ("dog/004.png", encoded(noise(0, 6, 5, 3))[:60], "cannot be decoded"),
        ("dog/004.png", b"no image", "cannot be decoded .no such image."),
        ("dog/004.webp", b"", "is no image by its name; expected .png, .jpg, .jpeg files"),
        ("dog/more/004.png", b"", "is no image by its name"),
        ("cat/000.png", encoded(noise(0, 6, 5, 4)), "has mode RGBA; expected L .* or RGB"),
        ("cat/000.png", b"no image", "is no intact PNG or JPEG file"),
    ],
)
def test_the_first_image_that_is_unlike_the_others_is_named(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "pets")
    put(folder / name, content)
    put(folder / "owl" / "009.png", encoded(noise(0, 9, 9)))  # comes later
    with pytest.raises(UserError, match=message) as error:
        load(f"imagefolder:{folder}", None, Silent())
    assert str(error.value).startswith(str(folder / Path(name).parts[0]))
    assert "owl" not in str(error.value)
    assert "\n" not in str(error.value)


def empty_class(folder: Path) -> None:
    (folder / "emu").mkdir()


def few(folder: Path) -> None:
    for kind in KINDS:
        for file in sorted((folder / kind).iterdir())[3:]:
            file.unlink()


def unlike_classes(folder: Path) -> None:
    no_classes(folder)
    write_folder(folder / "train")
    write_folder(folder / "test")
    (folder / "test" / "emu").mkdir()


def no_classes(folder: Path) -> None:
    for kind in KINDS:
        (folder / kind).rename(folder.parent / kind)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (empty_class, "emu holds no image"),
        (few, "holds 9 images; expected at least 10"),
        (unlike_classes, "train and test must have the same classes; see 'emu'"),
        (no_classes, "pets holds no folder; expected one for each class"),
    ],
)
def test_a_folder_of_another_layout_is_refused(
    spoil: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "pets")
    spoil(folder)
    with pytest.raises(UserError, match=message):
        info_of(folder)


@pytest.mark.parametrize("name", ["imagefolder:", "imagefolder:nowhere"])
def test_what_names_no_folder_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="names no folder; expected imagefolder:PATH"):
        find_info(name)


def test_unknown_names_get_a_suggestion() -> None:
    with pytest.raises(UserError, match="Did you mean 'cifar10'?"):
        find_info("cifar-10")
    with pytest.raises(UserError, match="There are .*imagefolder:PATH"):
        find_info("zzz")


def test_a_run_on_a_folder_keeps_its_path_to_itself(
    dpbench: Command, toy: Any, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "elsewhere" / "my pets")
    toy_run = ("run", "--method", "toy", "--profile", "smoke", "--eps", "0.001")
    ended = dpbench(*toy_run, "--dataset", f"imagefolder:{folder}", "--json")
    assert ended.code == 0, ended.err
    (file,) = Path("runs").rglob("record.json")
    assert file.parts[1] == "imagefolder-my-pets"
    record = json.loads(file.read_text())
    assert record["spec"]["dataset"] == "imagefolder:my pets"
    assert "elsewhere" not in file.read_text()


def test_a_bad_folder_ends_a_run_with_exit_code_2(
    dpbench: Command, toy: Any, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "pets")
    put(folder / "dog" / "004.png", b"no image")
    for path in (folder, tmp_path / "nowhere"):
        ended = dpbench(
            *("run", "--method", "toy", "--profile", "smoke", "--eps", "0.001"),
            *("--dataset", f"imagefolder:{path}"),
        )
        assert ended.code == 2, ended.err
        assert str(path) in ended.err and "Traceback" not in ended.err


def test_folders_of_runs_are_safe_names() -> None:
    spec = RunSpec(
        "m", "1", {}, "imagefolder:a/../b c", "0", 1.0, 1e-5, "add_remove", 0, "p", {}, 1
    )
    assert spec.folder.parts[0] == "imagefolder-a-..-b-c"
    assert replace(spec, dataset="cifar10").folder.parts[0] == "cifar10"


def test_folders_prefix_is_what_people_type() -> None:
    assert folders.PREFIX == "imagefolder:"
