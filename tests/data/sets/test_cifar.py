from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision import datasets

from dpbench.core.errors import UserError
from dpbench.core.progress import Silent
from dpbench.data import catalog
from dpbench.data.arrays import mapped
from dpbench.data.fetch import mirrors
from dpbench.data.load import load
from dpbench.data.sets import cifar
from tests.support.datasets import decoded, noise, put, python2_batch

CIFAR_INFO = replace(catalog.CIFAR10, train=15, test=4)


def write_cifar(folder: Path) -> dict[str, str]:
    """Three images in each train batch, four in the test batch; their MD5."""
    md5 = {}
    for number, name in enumerate(cifar.MD5):
        count = 4 if name == "test_batch" else 3
        labels = [(number + index) % 10 for index in range(count)]
        file = put(folder / name, python2_batch(noise(number, count, 3072), labels))
        md5[name] = hashlib.md5(file.read_bytes()).hexdigest()
    return md5


@pytest.mark.parametrize(
    "below", [".", "cifar-10-batches-py", "cifar10/cifar-10-batches-py"], ids=str
)
def test_cifar10_is_read_in_the_order_of_its_batches(root: Path, below: str) -> None:
    md5 = write_cifar(root / below)
    splits = decoded(cifar.find(root, Silent(), CIFAR_INFO, md5))
    expected = np.concatenate([noise(number, 3, 3, 32, 32) for number in range(5)])
    assert np.array_equal(splits["train"].pixels, expected)
    assert splits["train"].labels.tolist() == [0, 1, 2, 1, 2, 3, 2, 3, 4, 3, 4, 5, 4, 5, 6]
    assert np.array_equal(splits["test"].pixels, noise(5, 4, 3, 32, 32))
    assert splits.keys() == {"train", "test"}


def test_cifar10_has_torchvisions_files_and_hashes() -> None:
    theirs = datasets.CIFAR10
    assert list(cifar.MD5.items()) == [tuple(each) for each in theirs.train_list + theirs.test_list]
    assert cifar.BATCHES["test"] == ("test_batch",) and theirs.base_folder == cifar.FOLDER
    assert (cifar.MIRROR + cifar.ARCHIVE, cifar.ARCHIVE_MD5) == (theirs.url, theirs.tgz_md5)


def test_cifar10_is_read_as_torchvision_reads_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    md5 = write_cifar(root / cifar.FOLDER)
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(datasets.CIFAR10, "_load_meta", lambda self: None)
    theirs = datasets.CIFAR10(root, train=True)
    train = decoded(cifar.find(root, Silent(), CIFAR_INFO, md5))["train"]
    assert np.array_equal(train.pixels.permute(0, 2, 3, 1), theirs.data)
    assert train.labels.tolist() == theirs.targets


def test_cifar10_checks_the_md5_of_every_batch_before_reading_it(root: Path) -> None:
    md5 = write_cifar(root)
    for name in md5:
        wrong = md5 | {name: "0" * 32}
        with pytest.raises(UserError, match=f"{name} has MD5 .* expected 000000000000, the offi"):
            mapped(cifar.find(root, Silent(), CIFAR_INFO, wrong), Silent())


def test_cifar10_without_a_batch_is_an_error(root: Path) -> None:
    md5 = write_cifar(root)
    (root / "data_batch_4").unlink()
    with pytest.raises(UserError, match="data_batch_4 cannot be read"):
        mapped(cifar.find(root, Silent(), CIFAR_INFO, md5), Silent())


def archive(names: Sequence[str], source: Path, file: Path) -> None:
    with tarfile.open(file, "w:gz") as content:
        for name in names:
            content.add(source / name, f"{cifar.FOLDER}/{name}")


def serve(monkeypatch: pytest.MonkeyPatch, names: Sequence[str], source: Path) -> list[str]:
    """Instead of a download: writes an archive with some of the batches."""
    asked: list[str] = []

    def fetch(
        mirror: str, dataset: str, md5: dict[str, str], megabytes: float, folder: Path, _: Any
    ) -> Path:
        (name,) = md5
        asked.append(mirror + name)
        archive(names, source, folder / name)
        return folder

    monkeypatch.setattr(mirrors, "fetch", fetch)
    return asked


def test_a_downloaded_cifar10_stays_in_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    md5 = write_cifar(tmp_path / "source")
    asked = serve(monkeypatch, list(md5), tmp_path / "source")
    for _ in range(2):
        original = cifar.find(None, Silent(), CIFAR_INFO, md5)
        assert original.folder == cache / "cifar10" / cifar.FOLDER
        assert len(decoded(original)["train"]) == 15
    assert asked == ["https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"]
    assert {file.name for file in (cache / "cifar10").iterdir()} == {cifar.FOLDER}
    assert {file.name for file in original.folder.iterdir()} == set(md5)


def test_an_archive_without_a_batch_is_not_kept(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    md5 = write_cifar(tmp_path / "source")
    serve(monkeypatch, list(md5)[:-1], tmp_path / "source")
    with pytest.raises(UserError, match="holds no test_batch"):
        cifar.find(None, Silent(), CIFAR_INFO, md5)
    assert list((cache / "cifar10").iterdir()) == []


def test_without_a_network_cifar10_says_where_to_get_it_and_where_to_put_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cifar, "MIRROR", "http://127.0.0.1:9/")
    with pytest.raises(UserError) as error:
        load("cifar10", None, Silent())
    for part in ("127.0.0.1:9/cifar-10-python.tar.gz", cifar.FOLDER, "--data-root", "refused"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
