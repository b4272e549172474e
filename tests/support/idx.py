"""A tiny data set in four IDX files, the layout of MNIST."""

from __future__ import annotations

import gzip
import hashlib
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np

from dpbench.core.progress import Silent
from dpbench.data.catalog import DatasetInfo
from dpbench.data.sets.mnist import FILES, TRAIN_IMAGES, IdxSet, find

TINY = DatasetInfo("tiny", (1, 4, 3), 10, tuple("0123456789"), 20, 10, "a small set of real format")
TINY_SET = IdxSet(TINY, folders=("Tiny/raw", "tiny"))


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def tiny_arrays(fill: int = 0, info: DatasetInfo = TINY) -> dict[str, np.ndarray]:
    content = {}
    for name in FILES:
        count = info.train if name.startswith("train") else info.test
        content[name] = np.arange(count, dtype=np.uint8) % 10
        if "images" in name:
            content[name] = np.full((count, *info.shape[1:]), fill, np.uint8)
    return content


def write_idx(folder: Path, content: dict[str, np.ndarray], gz: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in content.items():
        if gz:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array)))
        else:
            (folder / name).write_bytes(idx_bytes(array))
    return folder


def spoil(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder


def pinned(content: dict[str, np.ndarray]) -> IdxSet:
    hashes = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in content.items()}
    return replace(TINY_SET, sha256=hashes)


def fill_of(source: IdxSet, data_root: Path | None) -> int:
    found, _ = find(source, data_root, Silent())
    return int(found[TRAIN_IMAGES][0, 0, 0])
