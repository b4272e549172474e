from __future__ import annotations

import gzip
import hashlib
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dpbench.core.errors import UserError
from dpbench.core.progress import Silent
from dpbench.data.catalog import MNIST
from dpbench.data.formats.idx import BadIdx
from dpbench.data.load import load
from dpbench.data.sets.mnist import FILES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS, read_folder
from tests.support.idx import (
    TINY_SET,
    idx_bytes,
    pinned,
    spoil,
    tiny_arrays,
    write_idx,
)

WHOLE_LABELS = idx_bytes(np.arange(20, dtype=np.uint8) % 10)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (TRAIN_LABELS, b"", r"begins with the bytes \(none\); expected 00000801"),
        (TRAIN_LABELS, b"\x00\x00\x08\x03" + WHOLE_LABELS[4:], "bytes 00000803; expected 00000801"),
        (TRAIN_LABELS, b"\x00\x00\x0d\x01" + WHOLE_LABELS[4:], "bytes 00000d01; expected 00000801"),
        (TRAIN_LABELS, WHOLE_LABELS[:6], "ends within its header, after 6 bytes"),
        (TRAIN_LABELS, WHOLE_LABELS[:-1], "decodes to 27 bytes; expected 28"),
        (TRAIN_LABELS, WHOLE_LABELS + b"\x00", "decodes to more than 28 bytes; expected 28"),
        (TRAIN_LABELS, idx_bytes(np.zeros(19, np.uint8)), "has the shape 19; expected 20"),
        (TRAIN_IMAGES, idx_bytes(np.zeros((20, 3, 4), np.uint8)), "shape 20x3x4; expected 20x4x3"),
        (TRAIN_IMAGES, idx_bytes(np.zeros((19, 4, 3), np.uint8)), "shape 19x4x3; expected 20x4x3"),
        (
            TEST_LABELS,
            idx_bytes(np.full(10, 10, np.uint8)),
            "holds the label 10; expected labels 0 to 9",
        ),
        (f"{TRAIN_LABELS}.gz", b"no gzip at all", "is no intact gzip file"),
        (
            f"{TRAIN_LABELS}.gz",
            gzip.compress(WHOLE_LABELS, mtime=0)[:-9],
            "is a truncated gzip file",
        ),
    ],
)
def test_a_bad_file_is_named_with_what_was_expected(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    folder = write_idx(tmp_path, tiny_arrays())
    if name.endswith(".gz"):
        (folder / name.removesuffix(".gz")).unlink()
    spoil(folder, name, content)
    with pytest.raises(BadIdx, match=message) as error:
        read_folder(folder, TINY_SET)
    assert str(error.value).startswith(str(folder / name))
    assert "\n" not in str(error.value)


def test_a_small_gzip_file_cannot_ask_for_much_memory(tmp_path: Path) -> None:
    folder = write_idx(tmp_path, tiny_arrays(), gz=True)
    bomb = gzip.compress(idx_bytes(np.arange(20, dtype=np.uint8) % 10) + bytes(50_000_000))
    spoil(folder, f"{TRAIN_LABELS}.gz", bomb)
    tracemalloc.start()
    with pytest.raises(BadIdx, match="decodes to more than 28 bytes"):
        read_folder(folder, TINY_SET)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2e6, "the file decodes to 50 MB"


def test_a_pipe_is_no_file_of_a_set(tmp_path: Path) -> None:
    folder = write_idx(tmp_path, tiny_arrays())
    (folder / TEST_LABELS).unlink()
    os.mkfifo(folder / TEST_LABELS)
    with pytest.raises(BadIdx, match="t10k-labels.*is missing"):
        read_folder(folder, TINY_SET)


def test_flipped_bits_in_a_gzip_file_are_noticed(tmp_path: Path) -> None:
    folder = write_idx(tmp_path, tiny_arrays(), gz=True)
    packed = bytearray((folder / f"{TRAIN_LABELS}.gz").read_bytes())
    packed[-7] ^= 1  # in the checksum
    spoil(folder, f"{TRAIN_LABELS}.gz", bytes(packed))
    with pytest.raises(BadIdx, match="train-labels.*no intact gzip file"):
        read_folder(folder, TINY_SET)


def test_a_missing_file_of_a_set_is_named(tmp_path: Path) -> None:
    folder = write_idx(tmp_path, tiny_arrays())
    (folder / TEST_LABELS).unlink()
    with pytest.raises(BadIdx, match="t10k-labels.*is missing"):
        read_folder(folder, TINY_SET)


def test_pinned_hashes_hold_for_plain_and_gzipped_files(tmp_path: Path) -> None:
    content = tiny_arrays(7)
    for gz in (False, True):
        read = read_folder(write_idx(tmp_path / str(gz), content, gz), pinned(content))
        assert all(np.array_equal(read[name], content[name]) for name in FILES)


@pytest.mark.parametrize("name", FILES)
def test_one_changed_element_breaks_a_pinned_hash(name: str, tmp_path: Path) -> None:
    content = tiny_arrays(7)
    source = pinned(content)
    content[name].flat[0] ^= 1
    found = hashlib.sha256(content[name].tobytes()).hexdigest()[:12]
    expected = source.sha256[name][:12]
    with pytest.raises(BadIdx, match=f"{name} .*{found}; expected {expected}"):
        read_folder(write_idx(tmp_path, content), source)


def test_files_of_another_set_of_the_same_names_are_refused(tmp_path: Path) -> None:
    content = tiny_arrays(7)
    digest = hashlib.sha256(content[TRAIN_IMAGES].tobytes()).hexdigest()
    source = replace(TINY_SET, impostors={digest: "othermnist"})
    with pytest.raises(BadIdx, match="holds the images of othermnist.*expected tiny"):
        read_folder(write_idx(tmp_path, content), source)


def test_mnist_is_checked_for_its_full_size(tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST" / "raw", tiny_arrays())
    with pytest.raises(UserError, match="20x4x3; expected 60000x28x28"):
        load("mnist", tmp_path, Silent())


def test_full_size_files_pass_as_mnist_but_not_as_fashionmnist(tmp_path: Path) -> None:
    write_idx(tmp_path, tiny_arrays(info=MNIST))
    assert len(load("mnist", tmp_path, Silent()).splits.train) == 60_000
    with pytest.raises(UserError, match="SHA-256 [0-9a-f]{12}; expected 2e487a6c8912"):
        load("fashionmnist", tmp_path, Silent())
