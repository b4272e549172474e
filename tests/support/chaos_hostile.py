"""Judges what a command made of hostile input, and files that are larger than they look."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import re
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpbench.parallel import launcher
from tests.support.chaos import MEMORY, TRACEBACK, Ended, Place, limit_address_space, start

FAMILY = "hostile inputs"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]")
UNFORESEEN = "--debug shows where"
MOST_PROCESSES = 4
CHUNK = 1 << 24  # bytes of zeros that are compressed once

Arguments = tuple[object, ...]
# Makes the input in a place; returns the arguments of the command that gets it.
Prepare = Callable[[Place], Arguments]


def evaluate(source: object) -> Arguments:
    options = ("--dataset", "digits", "--evaluators", "toy", "--profile", "smoke")
    return ("evaluate", source, *options)


def plan(dataset: str, *options: object) -> Arguments:
    """A run of the smallest method on a data set; ``--dry-run`` has only its plan made."""
    small = ("--method", "toy", "--eps", "0.001", "--profile", "smoke", "--evaluators", "toy")
    return ("run", *small, "--dataset", dataset, "--out", "here", *options)


def load(dataset: str, *options: object) -> Arguments:
    """A run that loads a data set and releases it as it is."""
    small = ("--method", "real", "--profile", "smoke", "--evaluators", "toy", "--out", "here")
    return ("run", *small, "--dataset", dataset, *options)


def bound(path: Path) -> None:
    """Make a socket."""
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


def harmless(
    place: Place, arguments: Arguments, before: Callable[[], object] = lambda: None
) -> Ended:
    """Hold that a command does no harm: it ends, soon, small, in words, and in its own folder."""
    inputs = sum(
        os.lstat(Path(folder) / name).st_size
        for folder, _, names in os.walk(place.work)
        for name in names
    )
    outside = place.outside()

    def prepared() -> None:
        launcher.start = bounded(launcher.start)  # in a fork: there is nothing to put back
        limit_address_space(2 * MEMORY + inputs)  # so that the machine survives what is found
        before()

    ended = start(place, *arguments, before=prepared).end()
    said = ended.out + ended.err
    problems = []
    if ended.hung:
        problems.append("it hangs")
    elif ended.code not in (0, 1, 2):
        problems.append(f"exit {ended.code}")
    if TRACEBACK in said:
        problems.append("a traceback")
    if ended.grown > MEMORY + inputs or "MemoryError" in said:
        problems.append(f"{ended.grown >> 20} MB of memory")
    if (after := place.outside()) != outside:
        changed = sorted({path for path, _ in {*outside.items()} ^ {*after.items()}})
        problems.append(f"outside of its folders: {changed}")
    if place.executed.exists():
        problems.append("code was executed")
    if found := CONTROL.findall(said):
        problems.append(f"control characters are printed: {sorted(set(found))!r}")
    for table in (place.work / "lb").rglob("*.csv"):
        if re.search(r'(?m)(^|,)"?[=@+-](?![\d.])', table.read_text()):
            problems.append(f"{table.name} holds a formula")
    assert not problems, f"{', '.join(problems)}: {' '.join(map(str, arguments))[:300]}\n{ended}"
    return ended


def bounded(begin: Callable[..., Any]) -> Callable[..., Any]:
    """Start processes, but no more than the machine that this runs on can bear."""
    started = iter(range(MOST_PROCESSES))

    def start_one(*arguments: Any, **named: Any) -> Any:
        if next(started, None) is None:
            os._exit(99)
        return begin(*arguments, **named)

    return start_one


def kind_of(ended: Ended) -> str:
    if ended.code == 0:
        return "accepted"
    return "ended by an unforeseen error" if UNFORESEEN in ended.err else "refused"


class Executes:
    """Unpickling it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.file,)


def pickled(place: Place) -> bytes:
    return pickle.dumps(Executes(place.executed))


def long_gzip(head: bytes, chunks: int) -> bytes:
    """A gzip file of ``head`` and ``chunks`` times 16 MB of zeros."""
    member = gzip.compress(bytes(CHUNK), 6)
    return gzip.compress(head) + member * chunks


def deflated_zeros(head: bytes, chunks: int) -> tuple[bytes, int, int]:
    """Raw deflate of ``head`` and zeros; the CRC-32 and the length of what it holds."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    first = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(CHUNK)) + packer.flush(zlib.Z_FULL_FLUSH)
    crc = zlib.crc32(head)
    for _ in range(chunks):
        crc = zlib.crc32(bytes(CHUNK), crc)
    return first + block * chunks + packer.flush(zlib.Z_FINISH), crc, len(head) + CHUNK * chunks


def zip_of(entries: dict[str, bytes], compressed: bool = True) -> bytes:
    content = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, entry in entries.items():
            archive.writestr(name, entry)
    return content.getvalue()


def zip_bomb(name: str, head: bytes, chunks: int) -> bytes:
    """A zip file of one entry, of ``head`` and many zeros."""
    packed, crc, length = deflated_zeros(head, chunks)
    sizes = struct.pack("<III", crc, len(packed), min(length, 0xFFFFFFFF))
    common = struct.pack("<HHHHH", 20, 0, 8, 0, 33) + sizes
    label = name.encode()
    local = b"PK\3\4" + common + struct.pack("<HH", len(label), 0) + label
    central = b"PK\1\2" + struct.pack("<H", 20) + common
    central += struct.pack("<HHHHHII", len(label), 0, 0, 0, 0, 0, 0) + label
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1, 1, len(central), len(local + packed), 0)
    return local + packed + central + end


def npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=True)
    return content.getvalue()


def npy_header(text: str | bytes, version: int = 1, length: int | None = None) -> bytes:
    """An npy file of a header alone."""
    raw = text.encode() if isinstance(text, str) else text
    raw = raw + b"\n"
    size = len(raw) if length is None else length
    packed = struct.pack("<H", size & 0xFFFF) if version == 1 else struct.pack("<I", size)
    return b"\x93NUMPY" + bytes((version, 0)) + packed + raw


def png(width: int, height: int, extra: bytes = b"", bits: int = 8, colour: int = 0) -> bytes:
    """A grey PNG whose pixels are all 0, with some chunks before them."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = 1 + (width * bits * samples + 7) // 8
    if row * height > 1 << 24:
        packer = zlib.compressobj(6)
        data = b"".join(packer.compress(bytes(row)) for _ in range(height)) + packer.flush()
    else:
        data = zlib.compress(bytes(row * height))
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = chunk(b"IHDR", head) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def cases(made: Mapping[str, object], short: int = 100) -> list[object]:
    """Parameters of a test; every ``short``-th is also among the slow tests."""
    return [
        pytest.param(prepare, id=name, marks=[pytest.mark.slow] if index % short == 0 else [])
        for index, (name, prepare) in enumerate(made.items())
    ]
