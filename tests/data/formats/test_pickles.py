from __future__ import annotations

import functools
import io
import os
import pickle
import pickletools
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpbench.core.errors import UserError
from dpbench.data.catalog import DatasetInfo
from dpbench.data.formats.pickles import read_batch
from tests.support.datasets import python2_batch

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
        (b"", "exhausted.*expected a pickled dict"),
        (python2_batch(ROWS, LABELS)[:-40], "is no intact batch"),
        (b"no pickle", "is no intact batch"),
        (b"Ppersistent\n.", "is no intact batch"),  # Python's own message has two lines
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
        # a key of tuples in tuples, the hash of which takes 2^60 steps
        (b"\x80\x02}K\x01" + b"2\x86" * 60 + b"K\x01s.", "it holds too many tuples"),
        # the memo would take 32 GB
        (b"\x80\x02}r\xff\xff\xff\x7f.", "it memorises too many objects"),
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
