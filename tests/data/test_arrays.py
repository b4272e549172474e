from __future__ import annotations

import functools
import io
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dpbench.core.errors import UserError
from dpbench.core.files import cache_folder
from dpbench.core.progress import Silent
from dpbench.data.arrays import Original, Part, content_hash, mapped
from dpbench.data.catalog import DatasetInfo
from dpbench.data.formats.pickles import read_batch
from tests.support.datasets import Counter, python2_batch

INFO = DatasetInfo("tiny", (3, 2, 4), 5, tuple("abcde"), 10, 6, "a small set", validation=4)
COUNTS = {"train": 10, "test": 6, "validation": 4}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches" / "dpbench" / "arrays"


def parts() -> dict[str, Part]:
    rng = np.random.default_rng(0)
    return {
        split: (
            rng.integers(0, 256, (count, *INFO.shape), np.uint8),
            rng.integers(0, INFO.classes, count),
        )
        for split, count in COUNTS.items()
    }


@pytest.fixture
def original(tmp_path: Path) -> Original:
    """Decodes three images at a time, and counts how often it is asked for a split."""
    (tmp_path / "data" / "b").mkdir(parents=True)
    for name in ("a", "b/c"):
        (tmp_path / "data" / name).write_text(name)

    def decode(split: str) -> Iterator[Part]:
        decode.asked += 1  # type: ignore[attr-defined]
        pixels, labels = parts()[split]
        for start in range(0, len(pixels), 3):
            yield pixels[start : start + 3], labels[start : start + 3]

    decode.asked = 0  # type: ignore[attr-defined]
    return Original(INFO, tmp_path / "data", ("a", "b/c"), "as it is", decode)


def asked(original: Original) -> int:
    return original.decode.asked  # type: ignore[attr-defined, no-any-return]


# --- the cache


def test_arrays_are_decoded_once_and_then_mapped(original: Original) -> None:
    for _ in range(2):
        opened = mapped(original, Silent())
        assert opened.parts.keys() == COUNTS.keys()
        for split, (pixels, labels) in parts().items():
            found_pixels, found_labels = opened.parts[split]
            assert isinstance(found_pixels, np.memmap) and isinstance(found_labels, np.memmap)
            assert np.array_equal(found_pixels, pixels) and found_pixels.dtype == np.uint8
            assert np.array_equal(found_labels, labels) and found_labels.dtype == np.int64
        assert opened.content_hash == content_hash(list(parts().values()))
    assert asked(original) == len(COUNTS)


def test_decoding_tells_how_far_it_is(original: Original) -> None:
    counter = Counter()
    mapped(original, counter)
    assert (counter.total, counter.done, counter.unit) == (20, 20, "images")


def change_content(original: Original) -> Original:
    (original.folder / "b/c").write_text("other")
    return original


def change_time_alone(original: Original) -> Original:
    os.utime(original.folder / "a", ns=(0, 0))
    return original


@pytest.mark.parametrize(
    "change",
    [
        change_content,
        change_time_alone,
        lambda original: replace(original, recipe="another"),
        lambda original: replace(original, files=("a",)),
        lambda original: replace(original, info=replace(INFO, classes=6)),
    ],
)
def test_a_changed_source_is_decoded_again(original: Original, change: Any) -> None:
    mapped(original, Silent())
    mapped(change(original), Silent())
    assert asked(original) == 2 * len(COUNTS)


def test_a_moved_source_is_not(original: Original) -> None:
    mapped(original, Silent())
    moved = original.folder.rename(original.folder.with_name("elsewhere"))
    mapped(replace(original, folder=moved), Silent())
    assert asked(original) == len(COUNTS)


def test_what_is_written_to_a_tensor_stays_in_that_tensor(original: Original) -> None:
    pixels = mapped(original, Silent()).parts["train"][0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of arrays that cannot be written
        tensor = torch.from_numpy(pixels)
    tensor += 1
    assert not np.array_equal(tensor.numpy(), parts()["train"][0])
    assert np.array_equal(mapped(original, Silent()).parts["train"][0], parts()["train"][0])


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError, OSError])
def test_an_interruption_leaves_no_half_cache(
    original: Original, cache: Path, error: type[BaseException]
) -> None:
    def decode(split: str) -> Iterator[Part]:
        whole = original.decode(split)
        yield next(whole)
        raise error("stop")

    with pytest.raises(error if error is not OSError else UserError):
        mapped(replace(original, decode=decode), Silent())
    assert [file for file in cache.iterdir() if file.is_dir()] == []
    assert mapped(original, Silent()).parts["test"][0].shape == (6, *INFO.shape)


def test_what_a_killed_process_left_is_made_anew(original: Original, cache: Path) -> None:
    mapped(original, Silent())
    (whole,) = (file for file in cache.iterdir() if file.is_dir())
    partial = whole.rename(whole.with_name(f".{whole.name}.partial"))
    (partial / "train-pixels.npy").write_bytes(b"half")
    assert np.array_equal(mapped(original, Silent()).parts["train"][0], parts()["train"][0])
    assert asked(original) == 2 * len(COUNTS)
    assert not partial.exists()


def test_two_at_a_time_decode_once(original: Original) -> None:
    threads = [threading.Thread(target=mapped, args=(original, Silent())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked(original) == len(COUNTS)


@pytest.mark.parametrize(("train", "message"), [(9, "more than 9 train"), (11, "10 train images")])
def test_another_number_of_images_is_refused(original: Original, train: int, message: str) -> None:
    wrong = replace(original, info=replace(INFO, train=train))
    with pytest.raises(UserError, match=f"{message}.*expected {train}"):
        mapped(wrong, Silent())


def test_a_missing_file_is_named(original: Original) -> None:
    (original.folder / "b/c").unlink()
    with pytest.raises(UserError, match="b/c cannot be read .*expected all files of tiny"):
        mapped(original, Silent())


@pytest.mark.parametrize("name", ["test-pixels.npy", "validation-labels.npy", "sha256"])
def test_a_damaged_cache_is_named_and_to_be_deleted(
    original: Original, cache: Path, name: str
) -> None:
    mapped(original, Silent())
    (folder,) = (file for file in cache.iterdir() if file.is_dir())
    (folder / name).write_bytes((folder / name).read_bytes()[:-2])
    with pytest.raises(UserError, match=f"{folder} is damaged .*delete it"):
        mapped(original, Silent())


def test_a_cache_that_cannot_be_written_is_named(
    original: Original, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_folder()
    cache.touch()
    with pytest.raises(UserError, match="cannot write the cache .*XDG_CACHE_HOME"):
        mapped(original, Silent())


def test_the_content_hash_knows_borders_and_every_element() -> None:
    whole = list(parts().values())
    pixels, labels = whole[0]
    hashes = {content_hash(whole), content_hash(whole[:2]), content_hash(whole[::-1])}
    for change in ("pixel", "label", "border"):
        other, other_labels = pixels.copy(), labels.copy()
        if change == "pixel":
            other[-1, -1, -1, -1] ^= 1
        elif change == "label":
            other_labels[0] += 1
        else:
            other = other.reshape(10, 3, 4, 2)
        hashes.add(content_hash([(other, other_labels), *whole[1:]]))
    assert len(hashes) == 6


MEASURE = """
import re, sys
from pathlib import Path
import numpy as np, torch
from dpbench.data.arrays import Original, mapped
from dpbench.data.catalog import DatasetInfo
from dpbench.progress import Silent

def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

def growth(images, keep):
    def decode(split):
        for _ in range(0, images, 1000):
            yield np.ones((1000, 3, 32, 32), np.uint8), np.zeros(1000, np.int64)
    info = DatasetInfo("made", (3, 32, 32), 1, ("a",), images, images, "")
    before = anonymous()
    pixels = keep(torch.from_numpy(mapped(
        Original(info, Path("."), (), str(images), decode), Silent()).parts["train"][0]))
    assert all(part.amax() == 1 for part in pixels.split(1000))  # looks at every page
    return anonymous() - before

growth(1000, lambda pixels: pixels)  # what is needed whatever the size
print(growth(2000, lambda p: p), growth(20000, lambda p: p), growth(20000, lambda p: p.clone()))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_resident_memory_does_not_grow_with_the_set() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, timeout=120, check=True
    )
    small, large, copied = map(float, ended.stdout.split())
    megabytes = 20_000 * 3 * 32 * 32 / 2**20
    assert large - small < 0.2 * megabytes
    assert copied - small > 0.8 * megabytes, "the measure must see a set that is in memory"


# --- pickled batches

BATCH_INFO = DatasetInfo("batches", (3, 2, 2), 10, tuple("0123456789"), 5, 5, "")
ROWS = np.arange(60, dtype=np.uint8).reshape(5, 12)
LABELS = [3, 0, 9, 1, 1]


def pickled(content: Any, protocol: int = 2) -> bytes:
    return pickle.dumps(content, protocol)


def as_before_numpy_2(content: bytes) -> bytes:
    return content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


@pytest.mark.parametrize(
    "content",
    [
        python2_batch(ROWS, LABELS),
        pickled({"data": ROWS, "labels": LABELS, "mean": ROWS.mean(0)}),
        as_before_numpy_2(pickled({"data": ROWS, "labels": LABELS})),
        pickled({"data": ROWS, "labels": LABELS}, 4),
        pickled({b"data": np.asfortranarray(ROWS), b"labels": LABELS}, 3),
    ],
)
def test_batches_of_all_pythons_are_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "batch").write_bytes(content)
    pixels, labels = read_batch(tmp_path / "batch", BATCH_INFO)
    assert np.array_equal(pixels, ROWS.reshape(5, 3, 2, 2))
    assert labels.tolist() == LABELS


def test_the_made_batch_is_what_python_reads() -> None:
    batch = pickle.loads(python2_batch(ROWS, LABELS), encoding="latin1")
    assert np.array_equal(batch["data"], ROWS) and batch["labels"] == LABELS


class Evil:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize(
    "payload",
    [
        Evil(os.system, "touch executed"),
        Evil(exec, "open('executed', 'w')"),
        Evil(functools.partial, print),
        Evil(io.open, "executed", "w"),
        Evil(np.load, "executed"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_would_run_something_is_refused(
    payload: Evil, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = pickled({"data": ROWS, "labels": LABELS, "mean": payload}, protocol)
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(UserError, match="refers to .*which may run anything") as error:
        read_batch(tmp_path / "batch", BATCH_INFO)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "executed").exists()


def test_the_payload_of_that_test_does_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickled({"mean": Evil(exec, "open('executed', 'w')")}))
    assert (tmp_path / "executed").exists()


def test_stand_ins_cannot_be_changed_by_a_pickle(tmp_path: Path) -> None:
    # sets an attribute of the class that stands in for numpy.dtype
    content = b"cnumpy\ndtype\n(N}S'state'\nK\x01stb."
    assert [opcode.name for opcode, _, _ in pickletools.genops(content)][-2:] == ["BUILD", "STOP"]
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(UserError, match="is no intact batch"):
        read_batch(tmp_path / "batch", BATCH_INFO)
    (tmp_path / "batch").write_bytes(python2_batch(ROWS, LABELS))
    assert read_batch(tmp_path / "batch", BATCH_INFO)[1].tolist() == LABELS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "EOFError.*expected a pickled dict"),
        (python2_batch(ROWS, LABELS)[:-40], "is no intact batch"),
        (b"no pickle", "is no intact batch"),
        (pickled([1, 2]), "is no intact batch"),
        (pickled({"data": ROWS}), "KeyError: 'labels'"),
        (pickled({"data": ROWS, "labels": tuple(LABELS)}), "labels are no list of integers"),
        (pickled({"data": ROWS, "labels": list("abcde")}), "labels are no list of integers"),
        (pickled({"data": ROWS.tolist(), "labels": LABELS}), "data is no array"),
        (pickled({"data": ROWS.astype(float), "labels": LABELS}), "no array of uint8"),
        (pickled({"data": np.array([None]), "labels": LABELS}), "no array of uint8"),
        (pickled({"data": ROWS, "labels": LABELS[:4]}), "4 labels and data of shape 5x12"),
        (pickled({"data": ROWS[:, :11], "labels": LABELS}), "5x11; expected 12 bytes"),
        (pickled({"data": ROWS, "labels": [*LABELS[:4], 10]}), "label 10; expected labels 0 to 9"),
        (pickled({"data": ROWS, "labels": [*LABELS[:4], -1]}), "label -1; expected labels 0 to 9"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.", "is no intact batch"),
    ],
)
def test_a_bad_batch_is_named_with_what_was_expected(
    content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_batch(tmp_path / "batch", BATCH_INFO)
    assert str(error.value).startswith(str(tmp_path / "batch"))
    assert "\n" not in str(error.value)


def test_labels_may_begin_at_one(tmp_path: Path) -> None:
    (tmp_path / "batch").write_bytes(pickled({"data": ROWS, "labels": [1, 2, 3, 9, 10]}))
    assert read_batch(tmp_path / "batch", BATCH_INFO, 1)[1].tolist() == [0, 1, 2, 8, 9]
    (tmp_path / "batch").write_bytes(pickled({"data": ROWS, "labels": [1, 2, 3, 9, 0]}))
    with pytest.raises(UserError, match="label 0; expected labels 1 to 10"):
        read_batch(tmp_path / "batch", BATCH_INFO, 1)
