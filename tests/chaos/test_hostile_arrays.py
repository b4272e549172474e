"""Hostile ``.npz`` files of samples."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.chaos import Place
from tests.support.chaos_hostile import (
    FAMILY,
    Arguments,
    Prepare,
    bound,
    cases,
    evaluate,
    harmless,
    kind_of,
    npy,
    npy_header,
    pickled,
    zip_bomb,
    zip_of,
)
from tests.support.chaos_runs import Lab

pytestmark = [pytest.mark.chaos(FAMILY)]

COUNT = 20
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 1, 16, 16), np.uint8)
LABELS = np.arange(COUNT) % 10
HUGE = "{'descr': '|u1', 'fortran_order': False, 'shape': %s}"


def file(content: bytes, name: str = "x.npz") -> Prepare:
    def prepare(place: Place) -> Arguments:
        (place.work / name).write_bytes(content)
        return evaluate(name)

    return prepare


def made(make: Callable[[Place], bytes]) -> Prepare:
    def prepare(place: Place) -> Arguments:
        (place.work / "x.npz").write_bytes(make(place))
        return evaluate("x.npz")

    return prepare


def arrays(images: np.ndarray = IMAGES, labels: np.ndarray = LABELS) -> Prepare:
    return file(zip_of({"images.npy": npy(images), "labels.npy": npy(labels)}))


def entries(**content: bytes) -> Prepare:
    good = {"images": npy(IMAGES), "labels": npy(LABELS)}
    return file(zip_of({f"{name}.npy": part for name, part in (good | content).items()}))


def special(make: Callable[[Path], object]) -> Prepare:
    def prepare(place: Place) -> Arguments:
        make(place.work / "x.npz")
        return evaluate("x.npz")

    return prepare


def dtypes() -> dict[str, Prepare]:
    found = {}
    for code in ("?", "i1", "u2", "i8", "u8", ">i4", "f2", "f8", "c16", "S3", "U3", "M8[s]", "V4"):
        found[f"images of {code}"] = arrays(images=np.zeros(IMAGES.shape, code))
        found[f"labels of {code}"] = arrays(labels=np.zeros(COUNT, code))
    for value in (np.nan, np.inf, -np.inf, 1e308, -1.0, 0.5):
        found[f"images all {value}"] = arrays(images=np.full(IMAGES.shape, value))
        found[f"labels all {value}"] = arrays(labels=np.full(COUNT, value))
    for number in (-1, 10, 2**31, 2**62, -(2**63)):
        found[f"labels all {number}"] = arrays(labels=np.full(COUNT, number, np.int64))
        found[f"images all {number}"] = arrays(images=np.full(IMAGES.shape, number, np.int64))
    structured = np.zeros(COUNT, [("a", "u1"), ("b", "O")])
    found["structured labels"] = arrays(labels=structured)
    return found


def shapes() -> dict[str, Prepare]:
    found = {}
    for shape in ((), (0,), (0, 1, 16, 16), (COUNT, 16), (1, 16, 16), (COUNT, 3, 16, 16)):
        found[f"images {shape}"] = arrays(images=np.zeros(shape, np.uint8))
    for shape in ((), (0,), (COUNT, 1), (COUNT - 1,), (1, COUNT)):
        found[f"labels {shape}"] = arrays(labels=np.zeros(shape, np.int64))
    for text in ("(10**9,1,16,16)", "(10000000000, 1, 16, 16)", "(-1, 1, 16, 16)", "(2**70,)"):
        found[f"header {text}"] = entries(images=npy_header(HUGE % text))
    for text in ("(99999999999999999999, 1, 16, 16)", "(4294967296, 4294967296)", "('a',)", "None"):
        found[f"header {text}"] = entries(images=npy_header(HUGE % text))
        found[f"labels' header {text}"] = entries(labels=npy_header(HUGE % text))
    return found


def headers() -> dict[str, Prepare]:
    return {
        "code in the header": entries(images=npy_header("__import__('os').system('true')")),
        "nested brackets": entries(images=npy_header("(" * 9000 + ")" * 9000)),
        "a deep sum": entries(images=npy_header("+".join("1" * 9000))),
        "a header of 4 GB": entries(images=npy_header("{}", 2, 0xFFFFFFF0)),
        "a long header": entries(images=npy_header("{" + " " * 500_000 + "}", 2)),
        "version 9": entries(images=npy_header("{}", 9)),
        "version 3, no UTF-8": entries(images=npy_header(b"\xff\xfe{}", 3)),
        "no dict": entries(images=npy_header("[1, 2]")),
        "missing keys": entries(images=npy_header("{'descr': '|u1'}")),
        "a dtype of objects": entries(images=npy_header(HUGE.replace("|u1", "|O") % "(20,)")),
        "an endless dtype": entries(
            images=npy_header(HUGE.replace("|u1", "|V2147483647") % "(9,)")
        ),
        "no npy": entries(images=b"these are no images"),
        "an empty npy": entries(images=b""),
        "labels no npy": entries(labels=b"\x00" * 100),
    }


def archives() -> dict[str, Prepare]:
    head = npy_header(HUGE % "(8000000, 1, 16, 16)")
    good = {"images.npy": npy(IMAGES), "labels.npy": npy(LABELS)}
    whole = zip_of(good)
    names = ("../../escaped.npy", "/escaped.npy", "..\\escaped.npy", "a/../../b.npy", "C:\\b.npy")
    shown = ("\x1b[31mred\x1b[0m.npy", "[red]x[/].npy", ":one:.npy", "=1+1.npy", "\u202etxt.npy")
    found: dict[str, Prepare] = {
        "a bomb of images": made(lambda place: zip_bomb("images.npy", head, 122)),
        "a bomb of labels": made(
            lambda place: zip_bomb("labels.npy", npy_header(HUGE % "(2000000000,)"), 120)
        ),
        "a bomb beside": made(lambda place: zip_bomb("other.npy", head, 100)),
        "many entries": made(lambda place: zip_of({f"{i}.npy": b"" for i in range(30_000)}, False)),
        "pickled images": made(lambda place: zip_of(good | {"images.npy": pickled(place)})),
        "pickled labels": made(lambda place: zip_of(good | {"labels.npy": pickled(place)})),
        "a pickle alone": made(pickled),
        "a pickle by name": file(whole, "x.pkl"),
        "objects": arrays(images=np.array([object, None], dtype=object)),
        "object labels": arrays(labels=np.array([{}] * COUNT, dtype=object)),
        "one array": file(npy(IMAGES)),
        "one array of objects": file(npy(np.array([None, 1], dtype=object))),
        "empty": file(b""),
        "an empty archive": file(zip_of({})),
        "images alone": file(zip_of({"images.npy": npy(IMAGES)})),
        "no suffix": file(zip_of({"images": npy(IMAGES), "labels": npy(LABELS)})),
        "twice": file(whole[:-22] + whole),
        "a comment": file(whole[:-2] + b"\xff\xff" + bytes(65535)),
        "encrypted": file(whole.replace(b"PK\1\2\x14\x03\x14\0\0", b"PK\1\2\x14\x03\x14\0\1")),
        "unknown compression": file(whole.replace(b"\x08\0", b"\x63\0")),
        "no archive": file(b"PK\3\4" + bytes(1000)),
        "an end alone": file(b"PK\5\6" + bytes(18)),
        "a fifo": special(os.mkfifo),
        "a socket": special(bound),
        "a folder": special(Path.mkdir),
        "a link to zeros": special(lambda path: path.symlink_to("/dev/zero")),
        "a link to chance": special(lambda path: path.symlink_to("/dev/urandom")),
        "a link to itself": special(lambda path: path.symlink_to(path)),
        "a link to nothing": special(lambda path: path.symlink_to("nothing")),
        "zeros": lambda place: evaluate("/dev/zero"),
        "standard input": lambda place: evaluate("/dev/stdin"),
        "the memory": lambda place: evaluate("/proc/self/mem"),
    }
    for name in names + shown:
        found[f"entry {name!r}"] = file(zip_of(good | {name: npy(LABELS)}))
        found[f"only entry {name!r}"] = file(zip_of({name: npy(LABELS)}))
    return found


def mutations(count: int) -> dict[str, Prepare]:
    """Bytes changed at random, in a compressed and in a plain file."""
    found = {}
    for index in range(count):
        rng = random.Random(f"npz {index}")
        good = {"images.npy": npy(IMAGES), "labels.npy": npy(LABELS)}
        content = bytearray(zip_of(good, compressed=bool(index % 2)))
        spots = [*range(120), *range(len(content) - 250, len(content))]
        for _ in range(rng.choice((1, 1, 3, 20))):
            content[rng.choice(spots)] = rng.randrange(256)
        if index % 5 == 0:
            del content[rng.randrange(len(content)) :]
        found[f"mutation {index}"] = file(bytes(content))
    return found


CASES = dtypes() | shapes() | headers() | archives() | mutations(24)


@pytest.mark.parametrize("prepare", cases(CASES))
def test_a_hostile_archive_does_no_harm(
    prepare: Prepare, place: Place, lab: Lab, record_property: Callable[[str, object], None]
) -> None:
    ended = harmless(lab.warm(place), prepare(place))
    record_property("detail", kind_of(ended))
