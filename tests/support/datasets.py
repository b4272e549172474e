"""Small files in the formats of the real data sets."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dpbench.core.images import Images
from dpbench.core.progress import Silent
from dpbench.data.arrays import Original, mapped


class Counter(Silent):
    """Progress that keeps what the last task announced and sums what it advanced by."""

    total, done, unit = 0.0, 0.0, ""

    def advance(self, amount: float, note: str = "") -> None:
        self.done += amount

    @contextmanager
    def task(self, label: str, total: float, unit: str, done: float = 0) -> Iterator[Counter]:
        self.total, self.done, self.unit = total, done, unit
        yield self


def python2_batch(data: np.ndarray, labels: Sequence[int]) -> bytes:
    """A batch pickled as Python 2 pickled CIFAR-10's: protocol 2, all strings are bytes."""

    def text(content: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(content)) + content

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + text(b"|") + b"NNN" + number(-1) + number(-1) + b"K\x00tb"
    shape = number(data.shape[0]) + number(data.shape[1]) + b"\x86"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b")
    array += b"\x87R(K\x01" + shape + dtype + b"\x89" + text(data.tobytes()) + b"tb"
    numbers = b"](" + b"".join(map(number, labels)) + b"e"
    names = text(b"batch_label") + text(b"a batch") + text(b"labels") + numbers
    return b"\x80\x02}(" + names + text(b"data") + array + b"u."


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def encoded(pixels: np.ndarray, format: str = "PNG", **options: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format, **options)
    return content.getvalue()


def put(file: Path, content: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def decoded(original: Original) -> dict[str, Images]:
    """The splits that there are, by name."""
    splits = vars(mapped(original, Silent()).splits)
    return {name: images for name, images in splits.items() if images is not None}
