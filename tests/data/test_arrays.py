from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from dpbench.core.errors import UserError
from dpbench.core.progress import Silent
from dpbench.data.arrays import LabelledPixels, Original, mapped
from dpbench.data.catalog import DatasetInfo
from tests.support.datasets import Counter

INFO = DatasetInfo("tiny", (3, 2, 4), 5, tuple("abcde"), 10, 6, "a small set", validation=4)


COUNTS = {"train": 10, "test": 6, "validation": 4}


@pytest.fixture
def arrays_cache(cache: Path) -> Path:
    return cache / "arrays"


# of the images below, train before test before validation: ids of runs hold such hashes
CONTENT_HASH = "5df7a8eeca8c8f29cee0b5767145e7a24c0224481d30fc6ff22528252b4d7bb9"


def parts() -> dict[str, LabelledPixels]:
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

    def decode(split: str) -> Iterator[LabelledPixels]:
        decode.asked += 1  # type: ignore[attr-defined]
        pixels, labels = parts()[split]
        for start in range(0, len(pixels), 3):
            yield pixels[start : start + 3], labels[start : start + 3]

    decode.asked = 0  # type: ignore[attr-defined]
    return Original(INFO, tmp_path / "data", ("a", "b/c"), "as it is", decode)


def asked(original: Original) -> int:
    return original.decode.asked  # type: ignore[attr-defined, no-any-return]


def test_arrays_are_decoded_once_and_then_mapped(original: Original) -> None:
    for _ in range(2):
        opened = mapped(original, Silent())
        for split, (pixels, labels) in parts().items():
            found = getattr(opened.splits, split)
            assert np.array_equal(found.pixels, pixels) and np.array_equal(found.labels, labels)
        assert opened.content_hash == CONTENT_HASH
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
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of arrays that cannot be written
        pixels = mapped(original, Silent()).splits.train.pixels
    pixels += 1
    assert not np.array_equal(pixels, parts()["train"][0])
    assert np.array_equal(mapped(original, Silent()).splits.train.pixels, parts()["train"][0])


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError, OSError])
def test_an_interruption_leaves_no_half_cache(
    original: Original, arrays_cache: Path, error: type[BaseException]
) -> None:
    def decode(split: str) -> Iterator[LabelledPixels]:
        whole = original.decode(split)
        yield next(whole)
        raise error("stop")

    with pytest.raises(error if error is not OSError else UserError):
        mapped(replace(original, decode=decode), Silent())
    assert [file for file in arrays_cache.iterdir() if file.is_dir()] == []
    assert mapped(original, Silent()).splits.test.pixels.shape == (6, *INFO.shape)


def test_what_a_killed_process_left_is_made_anew(original: Original, arrays_cache: Path) -> None:
    mapped(original, Silent())
    (whole,) = (file for file in arrays_cache.iterdir() if file.is_dir())
    partial = whole.rename(whole.with_name(f".{whole.name}.partial"))
    (partial / "train-pixels.npy").write_bytes(b"half")
    assert np.array_equal(mapped(original, Silent()).splits.train.pixels, parts()["train"][0])
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


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-2])


def flip_the_last_bit(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def hold_other_arrays(file: Path) -> None:
    with file.open("wb") as handle:
        np.save(handle, np.zeros(3, np.int64))


@pytest.mark.parametrize("name", ["test-pixels.npy", "validation-labels.npy", "sha256"])
@pytest.mark.parametrize("damage", [Path.unlink, cut_short, flip_the_last_bit, hold_other_arrays])
def test_damaged_arrays_are_decoded_again(
    original: Original, arrays_cache: Path, name: str, damage: Callable[[Path], None]
) -> None:
    first = mapped(original, Silent())
    (folder,) = (file for file in arrays_cache.iterdir() if file.is_dir())
    damage(folder / name)
    again = mapped(original, Silent())
    assert asked(original) == 2 * len(COUNTS)
    assert again.content_hash == first.content_hash
    assert np.array_equal(again.splits.test.pixels, parts()["test"][0])
    assert mapped(original, Silent()).content_hash == first.content_hash
    assert asked(original) == 2 * len(COUNTS), "it was mended, and decoded once more"


def test_a_cache_that_cannot_be_written_is_named(
    original: Original, arrays_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays_cache.parent.mkdir(parents=True)
    arrays_cache.touch()
    with pytest.raises(UserError, match="cannot write the cache .*XDG_CACHE_HOME"):
        mapped(original, Silent())


def mapped_file(tensor: Tensor) -> str:
    """Path of the file that a tensor's memory belongs to; empty if it belongs to the process."""
    first, last = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes - 1
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, path = line.split(maxsplit=5) if line.count("/") else (line.split()[0], "")
        start, end = (int(address, 16) for address in span.split("-"))
        if start <= first and last < end:
            return path
    raise AssertionError("the tensor's memory is in no mapping")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_a_data_set_of_any_size_takes_no_memory_of_the_process(original: Original) -> None:
    splits = mapped(original, Silent()).splits
    for name in COUNTS:
        images = getattr(splits, name)
        assert mapped_file(images.pixels).endswith(f"{name}-pixels.npy")
        assert mapped_file(images.labels).endswith(f"{name}-labels.npy")
        assert not mapped_file(images.pixels.clone()), "the check must see a copy in memory"
