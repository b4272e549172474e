"""The attack on the noise of a run: making it again from what the run publishes."""

from __future__ import annotations

import base64
import hashlib
import json
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dpbench
from dpbench.core.streams import KEY_BYTES, PUBLIC_STREAMS, Streams, reproducible_key
from dpbench.privacy import dpsgd
from dpbench.runs import fitting
from tests.support.checks import expect
from tests.support.command import TOY, Command
from tests.support.private import Gradients, flat

PURPOSE = "mean image"
NUMBERS = 8  # of the first release: enough to know it by


def published(folder: Path) -> Iterator[bytes]:
    """The bytes of every file of a run, smallest first, and of what is packed in it."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    for file in sorted(files, key=lambda file: file.stat().st_size):
        yield file.read_bytes()
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                for name in archive.namelist():
                    content = archive.read(name)
                    yield content
                    if name.endswith(".pkl"):
                        yield from unpickled(content)


def unpickled(content: bytes) -> Iterator[bytes]:
    """The texts and bytes in a pickle, which has another spelling for bytes that are no ASCII."""
    for _, argument, _ in pickletools.genops(content):
        if isinstance(argument, str):
            yield argument.encode("latin1", "ignore")
        elif isinstance(argument, bytes):
            yield argument


def sources() -> Iterator[bytes]:
    yield from (file.read_bytes() for file in Path(dpbench.__file__).parent.rglob("*.py"))


def leaves(value: Any) -> Iterator[Any]:
    """The numbers and texts of a JSON document."""
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from leaves(each)
    else:
        yield value


def guessed_seeds(folder: Path) -> set[int]:
    """Whole numbers that a run might have started its noise from."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    clock = {int(file.stat().st_mtime) - ago for file in files for ago in range(120)}
    record = json.loads((folder / "record.json").read_text())
    numbers = {each for each in leaves(record) if isinstance(each, int) and each >= 0}
    return {*range(1000), *clock, *numbers, *(file.stat().st_size for file in files)}


def guessed_keys(folder: Path) -> Iterator[bytes]:
    """Keys of 32 bytes: hidden in what is published, in a few spellings, or derived from it."""
    record = json.loads((folder / "record.json").read_text())
    texts = {str(each).encode() for each in leaves(record)}
    for content in (*published(folder), *sources(), *texts):
        yield hashlib.sha256(content).digest()
        yield hashlib.blake2b(content, digest_size=KEY_BYTES).digest()
    for seed in guessed_seeds(folder):
        yield from (seed.to_bytes(KEY_BYTES, order) for order in ("big", "little"))
        yield reproducible_key(seed)
        yield hashlib.sha256(str(seed).encode()).digest()
    for content in published(folder):
        yield from (content[i : i + KEY_BYTES] for i in range(len(content) - KEY_BYTES + 1))
        for found in re.finditer(rb"(?=([0-9a-fA-F]{64}))", content):
            yield bytes.fromhex(found[1].decode())
        for found in re.finditer(rb"(?=([A-Za-z0-9+/_-]{43}))", content):
            yield base64.b64decode(found[1].replace(b"-", b"+").replace(b"_", b"/") + b"=")


def guessed_noise(folder: Path) -> Iterator[np.ndarray]:
    """The noise of the first release, by everything that an attacker could try.

    The attacker has the source code (so the streams of the run under attack) and the record.
    """
    seed = json.loads((folder / "record.json").read_text())["spec"]["seed"]
    paths = [(), (0,), (PURPOSE,), (PURPOSE, 0), ("dp-noise", PURPOSE, 0)]
    for name, path in [(name, path) for name in PUBLIC_STREAMS for path in paths]:
        yield torch.randn(NUMBERS, generator=Streams(seed).public(name, *path)).numpy()
    for guess in guessed_seeds(folder):
        yield torch.randn(NUMBERS, generator=torch.Generator().manual_seed(guess)).numpy()
        for bits in (np.random.PCG64(guess), np.random.Philox(guess), np.random.Philox(key=guess)):
            yield np.random.Generator(bits).standard_normal(NUMBERS, dtype="float32")
        if guess < 2**32:
            yield np.random.RandomState(guess).standard_normal(NUMBERS).astype("float32")
    for key in dict.fromkeys(guessed_keys(folder)):
        rng = fitting.Streams(seed, key).secret("dp-noise", PURPOSE, 0)
        yield rng.standard_normal(NUMBERS, dtype="float32")


def published_noise(
    dpbench: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str
) -> bool:
    """Whether the noise of a run can be made again from what it leaves behind."""
    honest, drawn = dpsgd.gaussian_noise, []

    def seen(*arguments: Any) -> Gradients:
        noise = honest(*arguments)
        drawn.append(flat(noise)[:NUMBERS].numpy())
        return noise

    with monkeypatch.context() as patch:
        patch.setattr(dpsgd, "gaussian_noise", seen)
        assert dpbench(*TOY, *options, "--out", folder).code == 0
    return any(np.array_equal(guess, drawn[0]) for guess in guessed_noise(folder))


def check_noise_is_not_published(
    dpbench: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The noise of a run cannot be made again from what it leaves behind."""
    found = published_noise(dpbench, folder / "secret", monkeypatch)
    expect(not found, "the noise cannot be made again from what the run publishes")
    record = json.loads((folder / "secret" / "record.json").read_text())
    expect(record["privacy"]["release"] == "valid", "the run is certified")


def check_reproducible_noise_is_void_for_release(
    dpbench: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same attack succeeds where it should, so it is one; and the certificate says so."""
    assert published_noise(dpbench, folder / "open", monkeypatch, "--reproducible", "--seed", "7")
    record = json.loads((folder / "open" / "record.json").read_text())
    expected = "void for release: noise reproducible from a published seed"
    expect(record["privacy"]["release"] == expected, "the certificate is void for release")
