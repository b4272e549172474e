"""What tests of data sets have in common: small files in the formats of the real ones."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from dpbench.core.progress import Silent


class Counter(Silent):
    """Keeps what the last task announced, and adds up what it advances by."""

    total, done, unit = 0.0, 0.0, ""

    def advance(self, amount: float, note: str = "") -> None:
        self.done += amount

    @contextmanager
    def task(self, label: str, total: float, unit: str, done: float = 0) -> Iterator[Counter]:
        self.total, self.done, self.unit = total, done, unit
        yield self


def python2_batch(data: np.ndarray, labels: Sequence[int]) -> bytes:
    """A batch as Python 2 pickled CIFAR-10's, protocol 2: all strings are bytes."""

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
