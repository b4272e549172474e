"""Hostile files of data sets, of half-done runs and of the cache."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dpbench.core.files import sha256
from dpbench.records.run_record import digest
from tests.support.chaos import Place
from tests.support.chaos_hostile import (
    FAMILY,
    Arguments,
    Executes,
    Prepare,
    cases,
    harmless,
    kind_of,
    load,
    long_gzip,
    npy,
    pickled,
    zip_bomb,
    zip_of,
)
from tests.support.chaos_runs import COMMAND, TIMED, Lab

pytestmark = [pytest.mark.chaos(FAMILY)]

# of what a run or the cache stores
PrepareStored = Callable[[Place, Lab], Arguments]
HEADER = struct.pack(">HBB3I", 0, 8, 3, 60_000, 28, 28)
HUGE = struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1)


def in_set(dataset: str, name: str, make: Callable[[Path, Place], object]) -> Prepare:
    """A folder of a data set, found by the one file in it, which is hostile."""

    def prepare(place: Place) -> Arguments:
        folder = place.work / "data" / dataset
        folder.mkdir(parents=True)
        make(folder / name, place)
        return load(dataset, "--data-root", "data")

    return prepare


def of(content: bytes) -> Callable[[Path, Place], object]:
    return lambda file, place: file.write_bytes(content)


def linked(to: str) -> Callable[[Path, Place], object]:
    return lambda file, place: file.symlink_to(to)


def idx() -> dict[str, Prepare]:
    plain, packed = "train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"
    good = gzip.compress(HEADER + bytes(1000))
    return {
        "idx of 2.5 GB in 2.5 MB": in_set("mnist", packed, of(long_gzip(HEADER, 160))),
        "idx of 2.5 GB by no header": in_set("mnist", packed, of(long_gzip(b"", 160))),
        "idx of 10^28 bytes": in_set("mnist", plain, of(HUGE)),
        "idx of 10^28 bytes, packed": in_set("mnist", packed, of(gzip.compress(HUGE))),
        "idx of 255 dimensions": in_set("mnist", plain, of(b"\0\0\x08\xff" + bytes(1020))),
        "idx truncated": in_set("mnist", packed, of(good[:30])),
        "idx with a bad sum": in_set("mnist", packed, of(good[:-8] + bytes(8))),
        "idx of garbage": in_set("mnist", packed, of(b"\x1f\x8b\x08\xff" + bytes(range(200)))),
        "idx empty": in_set("mnist", plain, of(b"")),
        "idx a pickle": in_set("mnist", plain, lambda f, place: f.write_bytes(pickled(place))),
        "idx a fifo": in_set("mnist", plain, lambda file, place: os.mkfifo(file)),
        "idx zeros": in_set("mnist", plain, linked("/dev/zero")),
        "idx chance, packed": in_set("mnist", packed, linked("/dev/urandom")),
        "idx a folder": in_set("mnist", plain, lambda file, place: file.mkdir()),
    }


def pickles() -> dict[str, Prepare]:
    first = "train_data_batch_1"
    number = b"\x80\x02}(X\x04\0\0\0dataK\x05X\x06\0\0\0labels]u."
    return {
        "a pickle that executes": in_set(
            "imagenet32", first, lambda file, place: file.write_bytes(pickled(place))
        ),
        "a pickle of a pickle": in_set(
            "imagenet32",
            first,
            lambda file, place: file.write_bytes(pickle.dumps({"data": Executes(place.executed)})),
        ),
        "a pickle with no array": in_set("imagenet32", first, of(number)),
        "a pickle without an end": in_set("imagenet32", first, of(b"\x80\x04" + b"(" * 100_000)),
        "a pickle of 4 GB": in_set("imagenet32", first, of(b"\x80\x04\x8e" + b"\xff" * 8)),
        "a pickle that grows": in_set("imagenet32", first, of(b"\x80\x02]" + b"2\x86" * 5000)),
        "a pickle fifo": in_set("imagenet32", first, lambda file, place: os.mkfifo(file)),
        "a pickle of zeros": in_set("imagenet32", first, linked("/dev/zero")),
        "cifar of zeros": in_set("cifar10", "data_batch_1", linked("/dev/zero")),
        "cifar a fifo": in_set("cifar10", "data_batch_1", lambda file, place: os.mkfifo(file)),
    }


def half_done(place: Place, lab: Lab) -> Path:
    """A run whose training is over and which is to draw samples."""
    folder = place.work / "here"
    shutil.copytree(lab.folder, folder)
    record = json.loads((folder / "record.json").read_text())
    record |= {"status": "started", "done": ["fit"], "evaluators": {}, "measurements": []}
    for name in [name for name in record["artifacts"] if name[0] in "sge"]:
        del record["artifacts"][name]
        (folder / name).unlink()
    keep(folder, record)
    return folder


def keep(folder: Path, record: dict[str, object]) -> None:
    artifacts = record["artifacts"]
    assert isinstance(artifacts, dict)
    for name in artifacts:
        if (folder / name).is_file():
            artifacts[name] = sha256(folder / name)
    record["digest"] = digest(record)
    (folder / "record.json").write_text(json.dumps(record))


def torched(place: Place, *, old: bool = False, inner: bool = False) -> bytes:
    content = io.BytesIO()
    bomb: object = Executes(place.executed)
    if inner:
        bomb = {"mean": torch.zeros(1, 16, 16), "more": bomb}
    torch.save(bomb, content, _use_new_zipfile_serialization=not old)
    return content.getvalue()


BOMBS: dict[str, Callable[[Place], bytes]] = {
    "a torch file": torched,
    "an old torch file": lambda place: torched(place, old=True),
    "a pickle among tensors": lambda place: torched(place, inner=True),
    "a bare pickle": pickled,
    "objects in npz": lambda place: zip_of({"mean.npy": pickled(place)}),
    "a zip bomb": lambda place: zip_bomb("archive/data.pkl", b"\x80\x02", 150),
    "names that lead out": lambda place: zip_of({"../../escaped/data.pkl": pickled(place)}),
    "garbage": lambda place: bytes(range(256)),
}


def in_run(name: str, bomb: str) -> PrepareStored:
    def prepare(place: Place, lab: Lab) -> Arguments:
        folder = half_done(place, lab)
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(BOMBS[bomb](place))
        keep(folder, json.loads((folder / "record.json").read_text()))
        return COMMAND

    return prepare


def in_training(bomb: str) -> PrepareStored:
    """Training state of somebody else's."""

    def prepare(place: Place, lab: Lab) -> Arguments:
        folder = half_done(place, lab)
        record = json.loads((folder / "record.json").read_text())
        record |= {"done": [], "artifacts": {}, "privacy": {}}
        keep(folder, record)
        (folder / "training").mkdir(mode=0o700)
        for name in ("training.stage", "private.stage"):
            (folder / "training" / name).write_bytes(BOMBS[bomb](place))
        return COMMAND

    return prepare


def in_cache(pattern: str, make: Callable[[Place], bytes]) -> PrepareStored:
    def prepare(place: Place, lab: Lab) -> Arguments:
        files = [file for file in place.cache.rglob("*") if file.is_file() and pattern in str(file)]
        assert files, f"there is no {pattern} in the cache"
        for file in files:
            file.write_bytes(make(place))
        return TIMED if pattern == "engines" else COMMAND

    return prepare


def stored() -> dict[str, PrepareStored]:
    found = {f"{bomb} as checkpoint": in_run("checkpoint.pt", bomb) for bomb in BOMBS}
    for bomb in ("a torch file", "an old torch file", "a bare pickle", "a zip bomb", "garbage"):
        found[f"{bomb} as training state"] = in_training(bomb)
    for bomb in ("a bare pickle", "objects in npz", "a zip bomb"):
        found[f"{bomb} as cached features"] = in_cache("features", BOMBS[bomb])
    deep = b"[" * 100_000
    found["brackets as engines"] = in_cache("engines", lambda place: deep)
    found["a module as engine"] = in_cache(
        "engines", lambda place: b'{"x": {"engine": "os", "physical_batch": 0}}'
    )
    found["objects as cached features"] = in_cache(
        "features", lambda place: zip_of({"features.npy": npy(torch.zeros(3).numpy())})
    )
    return found


@pytest.mark.parametrize("prepare", cases(idx() | pickles()))
def test_a_hostile_file_of_a_data_set_does_no_harm(
    prepare: Prepare, place: Place, lab: Lab, record_property: Callable[[str, object], None]
) -> None:
    ended = harmless(lab.warm(place), prepare(place))
    record_property("detail", kind_of(ended))


@pytest.mark.parametrize("prepare", cases(stored()))
def test_a_hostile_file_of_a_run_or_of_the_cache_does_no_harm(
    prepare: PrepareStored, place: Place, lab: Lab, record_property: Callable[[str, object], None]
) -> None:
    lab.warm(place)
    ended = harmless(place, prepare(place, lab))
    record_property("detail", kind_of(ended))
