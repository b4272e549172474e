"""Files of samples that ask for more than they hold."""

from __future__ import annotations

import io
import os
import tracemalloc
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpbench.core.errors import UserError
from dpbench.core.progress import Silent
from dpbench.data.catalog import DIGITS
from dpbench.data.samples import read_samples
from tests.support.datasets import encoded, noise, put

IMAGES = noise(0, 4, 1, 16, 16)
LABELS = np.arange(4)


def npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=True)
    return content.getvalue()


def header(shape: tuple[int, ...], descr: Any = "|u1") -> bytes:
    """The header of an array that is not there."""
    content = io.BytesIO()
    np.lib.format.write_array_header_2_0(
        content, {"shape": shape, "fortran_order": False, "descr": descr}
    )
    return content.getvalue()


def archive(file: Path, entries: Mapping[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(file, "w", packing) as handle:
        for name, content in entries.items():
            handle.writestr(name, content)
    return file


def test_many_blank_samples_are_refused_from_the_header(tmp_path: Path) -> None:
    blank = np.zeros((40_000, 1, 16, 16), np.uint8)
    file = tmp_path / "blank.npz"
    np.savez_compressed(file, images=blank, labels=np.zeros(40_000, np.int64))
    del blank
    tracemalloc.start()
    with pytest.raises(UserError, match="holds 40,000 images; expected at most 1,000, ten times"):
        read_samples(file, DIGITS, 1000, Silent())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2e6, "the images are 10 MB"


WHOLE = {"images.npy": npy(IMAGES), "labels.npy": npy(LABELS)}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"images.npy": b"no array"}, "the magic string is not correct"),
        ({"images.npy": b""}, "is not an .npz file"),
        ({"images.npy": header((10**12, 1, 16, 16))}, "holds 1,000,000,000,000 images"),
        ({"images.npy": header((4, 1, 16, 10**9))}, "shape .4, 1, 16, 1000000000.; samples of"),
        ({"images.npy": header((-4, 1, 16, 16))}, "has the shape .-4"),
        ({"images.npy": header((4, 1, 16, 16))}, "is not an .npz file"),
        ({"images.npy": header((4, 1, 16, 16), "S9999999")}, "images is .S9999999"),
        ({"images.npy": npy(IMAGES) + b"0"}, "images is longer than its header says"),
        ({"labels.npy": header((10**10,), "<i8")}, "labels has shape .10000000000,."),
        ({"labels.npy": header((4,), "|O")}, "labels holds Python objects, which are never"),
        ({"images": npy(IMAGES)}, "holds images more than once"),
        ({"images.npy": b"\x93NUMPY\x09\x00" + b"\0" * 99}, "unknown version .9, 0."),
    ],
)
def test_headers_are_checked_before_anything_is_unpacked(
    entries: Mapping[str, bytes], message: str, tmp_path: Path
) -> None:
    file = archive(tmp_path / "odd.npz", {**WHOLE, **entries})
    with pytest.raises(UserError, match=message) as error:
        read_samples(file, DIGITS, 100, Silent())
    assert "\n" not in str(error.value)


def test_an_archive_may_be_packed_as_numpy_packs(tmp_path: Path) -> None:
    for packing in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        found = read_samples(archive(tmp_path / "a.npz", WHOLE, packing), DIGITS, 4, Silent())
        assert np.array_equal(found.pixels, IMAGES) and found.labels.tolist() == [0, 1, 2, 3]
    with pytest.raises(UserError, match="in a way that NumPy does not use"):
        read_samples(archive(tmp_path / "a.npz", WHOLE, zipfile.ZIP_LZMA), DIGITS, 4, Silent())


def test_one_array_is_refused_without_reading_it(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", IMAGES)
    with pytest.raises(UserError, match="is not an .npz file"):
        read_samples(tmp_path / "one.npy", DIGITS, 4, Silent())


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    for file in (tmp_path / "pipe.npz", Path("/dev/zero")):
        with pytest.raises(UserError, match="is no regular file"):
            read_samples(file, DIGITS, 4, Silent())


def test_a_folder_of_too_many_images_is_refused(tmp_path: Path) -> None:
    for number in range(5):
        put(tmp_path / "3" / f"{number}.png", encoded(IMAGES[0, 0]))
    assert len(read_samples(tmp_path, DIGITS, 5, Silent())) == 5
    with pytest.raises(UserError, match="holds 5 images; expected at most 4"):
        read_samples(tmp_path, DIGITS, 4, Silent())
