from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision import datasets

from dpbench.core.errors import UserError
from dpbench.core.progress import Silent
from dpbench.data.load import load
from dpbench.data.sets.mnist import IDX_SETS, TRAIN_IMAGES, TRAIN_LABELS, find
from tests.support.idx import (
    TINY_SET,
    fill_of,
    spoil,
    tiny_arrays,
    write_idx,
)


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("folder", [".", "tiny", "Tiny/raw"])
def test_every_layout_is_found_below_a_data_root(folder: str, gz: bool, tmp_path: Path) -> None:
    write_idx(tmp_path / folder, tiny_arrays(5), gz)
    assert fill_of(TINY_SET, tmp_path) == 5


@pytest.mark.parametrize(
    ("name", "theirs", "folders"),
    [
        ("fashionmnist", datasets.FashionMNIST, {"fashionmnist", "fashion-mnist"}),
        ("mnist", datasets.MNIST, {"mnist"}),
    ],
)
def test_real_sets_know_torchvisions_layout_mirrors_and_hashes(
    name: str, theirs: type[datasets.MNIST], folders: set[str]
) -> None:
    ours = IDX_SETS[name]
    assert set(ours.folders) == {f"{theirs.__name__}/raw", *folders}
    assert (list(ours.mirrors), list(ours.md5.items())) == (theirs.mirrors, theirs.resources)


def test_sources_are_asked_in_order(
    tmp_path: Path, tiny_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = replace(TINY_SET, debian_folder=write_idx(tmp_path / "system", tiny_arrays(1)))
    assert fill_of(source, None) == 1
    write_idx(tiny_cache, tiny_arrays(2))
    assert fill_of(source, None) == 2
    monkeypatch.setenv("DPBENCH_DATA", str(write_idx(tmp_path / "environment", tiny_arrays(3))))
    assert fill_of(source, None) == 3
    assert fill_of(source, write_idx(tmp_path / "argument", tiny_arrays(4))) == 4


def test_a_data_root_without_the_set_is_passed_over(tmp_path: Path, tiny_cache: Path) -> None:
    write_idx(tiny_cache, tiny_arrays(2))
    (tmp_path / "empty").mkdir()
    assert fill_of(TINY_SET, tmp_path / "empty") == 2


@pytest.mark.parametrize("by_variable", [False, True])
def test_a_corrupt_file_in_a_data_root_is_an_error_at_once(
    by_variable: bool, tmp_path: Path, tiny_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_idx(tiny_cache, tiny_arrays())
    root = spoil(write_idx(tmp_path / "root", tiny_arrays()), TRAIN_LABELS, b"rubbish")
    monkeypatch.setenv("DPBENCH_DATA", str(root))
    with pytest.raises(UserError, match=f"{root / TRAIN_LABELS}.*replace it"):
        find(TINY_SET, None if by_variable else root, Silent())


def test_half_a_set_in_a_data_root_is_an_error_at_once(tmp_path: Path, tiny_cache: Path) -> None:
    write_idx(tiny_cache, tiny_arrays())
    root = write_idx(tmp_path / "root", tiny_arrays())
    (root / TRAIN_IMAGES).unlink()
    with pytest.raises(UserError, match="train-images.*is missing"):
        find(TINY_SET, root, Silent())


def test_a_corrupt_cache_file_is_named_where_none_can_be_downloaded(tiny_cache: Path) -> None:
    spoil(write_idx(tiny_cache, tiny_arrays()), TRAIN_LABELS, b"rubbish")
    with pytest.raises(UserError, match=f"could not be obtained .*{tiny_cache / TRAIN_LABELS}"):
        find(TINY_SET, None, Silent())


def test_without_xdg_cache_home_the_cache_is_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    write_idx(tmp_path / ".cache" / "dpbench" / "tiny", tiny_arrays(6))
    assert fill_of(TINY_SET, None) == 6


def test_a_data_root_that_is_no_folder_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--data-root names .*, which is no folder"):
        find(TINY_SET, tmp_path / "nowhere", Silent())


def test_when_all_fails_one_line_names_every_source(tmp_path: Path, tiny_cache: Path) -> None:
    source = replace(
        TINY_SET,
        mirrors=("http://127.0.0.1:9/", "http://nowhere.invalid/"),
        md5={"x": "0"},
        debian_folder=tmp_path / "system",
    )
    (tmp_path / "root").mkdir()
    with pytest.raises(UserError) as error:
        find(source, tmp_path / "root", Silent())
    message = str(error.value)
    assert "\n" not in message
    for part in (
        f"{tmp_path}/root",
        str(tiny_cache),
        f"{tmp_path}/system",
        "127.0.0.1:9",
        "nowhere",
    ):
        assert part in message
    assert "--dataset digits" in message


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=f"mirror: .*{tmp_path / 'file'}"):
        find(replace(TINY_SET, mirrors=("http://mirror/",)), None, Silent())


@pytest.mark.slow
@pytest.mark.usefixtures("real_environment")
def test_the_real_fashionmnist_has_the_pinned_hashes() -> None:
    try:
        dataset = load("fashionmnist", None, Silent(), holdout=5_000)
    except UserError as error:
        if "could not be obtained" not in str(error):
            raise
        pytest.skip(str(error))
    assert dataset.content_hash == (
        "a06d3266794aa0147787f49603795ec5e8a32fac55270d9b4ac38d415b342e8c"
    )
    assert dataset.splits.validation is not None
    held_out = dataset.splits.validation.labels.bincount()
    assert held_out.sum() == 5_000
    assert (held_out - 500).abs().max() < 4 * 20.3  # standard deviations, hypergeometric
    assert torch.equal(dataset.splits.train.labels.bincount(), 6_000 - held_out)
