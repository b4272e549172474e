from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dpbench.core.errors import UserError
from dpbench.core.progress import Silent
from dpbench.data import catalog
from dpbench.data import load as load_module
from dpbench.data.catalog import CATALOG, DIGITS
from dpbench.data.load import load
from dpbench.data.sets import mnist
from dpbench.data.sets.mnist import FILES, IDX_SETS, TRAIN_IMAGES
from tests.support.idx import (
    TINY_SET,
    tiny_arrays,
    write_idx,
)


def test_digits_are_what_the_catalog_says() -> None:
    digits = load("digits", None, Silent())
    train, test = digits.splits.train, digits.splits.test
    assert (len(train), len(test)) == (DIGITS.train, DIGITS.test)
    assert train.spec.shape == test.spec.shape == DIGITS.shape
    assert digits.splits.validation is None
    assert (train.pixels.min(), train.pixels.max()) == (0, 255)
    assert train.labels.unique().tolist() == list(range(10))


def test_digits_are_enlarged_by_nearest_neighbour() -> None:
    pixels = load("digits", None, Silent()).splits.test.pixels
    for row in (0, 1):
        for column in (0, 1):
            assert torch.equal(pixels[..., row::2, column::2], pixels[..., ::2, ::2])


def test_digits_are_the_same_on_every_machine_and_version() -> None:
    assert load("digits", None, Silent()).content_hash == (
        "966d5061705df3581cb8983b35c4024978b594eb9dfec7d9d429b1fdf15abc02"
    )


def test_digits_test_split_is_stratified() -> None:
    splits = load("digits", None, Silent()).splits
    test, train = splits.test.labels.bincount(), splits.train.labels.bincount()
    expected = (test + train) * DIGITS.test / (DIGITS.test + DIGITS.train)
    assert (test - expected).abs().max() <= 1


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match="Did you mean 'fashionmnist'"):
        load("fashion-mnist", None, Silent())


@pytest.mark.parametrize("holdout", [-1, DIGITS.train])
def test_an_impossible_holdout_is_refused(holdout: int) -> None:
    with pytest.raises(UserError, match="expected 0 to 1436"):
        load("digits", None, Silent(), holdout)


def test_holdout_takes_from_train_and_leaves_the_rest_alone() -> None:
    whole, held = load("digits", None, Silent()), load("digits", None, Silent(), 200)
    assert held.splits.validation is not None
    assert (len(held.splits.train), len(held.splits.validation)) == (DIGITS.train - 200, 200)
    assert torch.equal(whole.splits.test.pixels, held.splits.test.pixels)
    assert whole.content_hash == held.content_hash


def load_tiny(monkeypatch: pytest.MonkeyPatch, root: Path) -> load_module.Dataset:
    monkeypatch.setitem(IDX_SETS, "mnist", TINY_SET)
    return load("mnist", root, Silent())


def test_idx_files_become_images_and_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tiny_arrays()
    content[TRAIN_IMAGES][3, 2, 1] = 77
    dataset = load_tiny(monkeypatch, write_idx(tmp_path / "root", content))
    train = dataset.splits.train
    assert train.pixels.shape == (20, 1, 4, 3)
    assert train.pixels.sum() == train.pixels[3, 0, 2, 1] == 77
    assert train.labels.tolist() == [*range(10), *range(10)]
    assert len(dataset.splits.test) == 10
    assert dataset.source == str(tmp_path / "root")


@pytest.mark.parametrize("name", FILES)
def test_the_content_hash_changes_with_any_element(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tiny_arrays(7)
    before = load_tiny(monkeypatch, write_idx(tmp_path / "a", content)).content_hash
    same = load_tiny(monkeypatch, write_idx(tmp_path / "b", content, gz=True)).content_hash
    content[name].flat[-1] ^= 1
    after = load_tiny(monkeypatch, write_idx(tmp_path / "c", content)).content_hash
    assert before == same != after
    # ids of runs hold such hashes
    assert before == "7053079cfc5156f972f8fda15bb6c24abb4e0b5136f098b614779698cf98ebd0"


@pytest.mark.parametrize("name", ["celeba", "camelyon17", "imagenet32"])
def test_what_is_nowhere_says_where_to_get_it_and_where_to_put_it(name: str, root: Path) -> None:
    with pytest.raises(UserError) as error:
        load(name, root, Silent())
    for part in (f"{name} was found neither", "https://", "folder", "--data-root", "digits"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_every_data_set_can_be_loaded_by_name() -> None:
    known = {*mnist.IDX_SETS, *load_module.ORIGINALS, catalog.DIGITS.name}
    assert known == set(CATALOG)


@pytest.mark.parametrize(
    ("name", "message"),
    [("imagenet32", "was found neither"), ("cifar10", "could not be downloaded .*Not a directory")],
)
def test_a_cache_that_cannot_be_made_is_an_error_in_one_line(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=message) as error:
        load(name, None, Silent())
    assert "\n" not in str(error.value)
