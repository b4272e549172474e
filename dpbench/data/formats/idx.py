"""Data sets in IDX files (the format of MNIST), read strictly.

Format: two zero bytes, the element type (0x08 for uint8), the number of dimensions, each
dimension as a big-endian uint32, then the elements in C order
(http://yann.lecun.com/exdb/mnist/, "the IDX file format").
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpbench.data.catalog import DatasetInfo

TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"
FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)

UINT8 = 0x08

Array = NDArray[np.uint8]


class BadIdx(Exception):
    """A file that is not what it should be: one line that names it, what it is and should be."""


@dataclass(frozen=True)
class IdxSource:
    """Where a data set in four IDX files is found, and what must be in them.

    Attributes:
        info: Counts, shape and number of classes that the files must have.
        folders: Where below a data root the files may lie, besides in the data root itself.
        sha256: SHA-256 of each decoded array (no header), by name in ``FILES``; empty where the
            true values are not known.
        impostors: SHA-256 of the decoded train images of data sets that use the same file names,
            to the name of the data set.
        mirrors: URLs that a name in ``md5`` is appended to.
        md5: MD5 of each file of the mirrors.
        megabytes: Size of all files to download, MB.
        debian_package: Debian package that holds the files, or None.
        debian_folder: Where that package puts them, or None.
    """

    info: DatasetInfo
    folders: tuple[str, ...]
    sha256: Mapping[str, str] = field(default_factory=dict)
    impostors: Mapping[str, str] = field(default_factory=dict)
    mirrors: tuple[str, ...] = ()
    md5: Mapping[str, str] = field(default_factory=dict)
    megabytes: float = 0
    debian_package: str | None = None
    debian_folder: Path | None = None


def present(folder: Path, name: str) -> Path | None:
    """The file ``name`` in ``folder``, plain or gzipped, or None."""
    candidates = (folder / name, folder / f"{name}.gz")
    return next((file for file in candidates if file.is_file()), None)


def read_folder(folder: Path, source: IdxSource) -> dict[str, Array]:
    """The four arrays of a data set, by name in ``FILES``.

    Args:
        folder: Holds the files, plain or gzipped.
        source: What must be in them.

    Returns:
        Images ``(N, H, W)`` and labels ``(N,)``, uint8.

    Raises:
        BadIdx: A file is missing, cannot be read, or does not hold what it should.
    """
    info = source.info
    arrays = {}
    for name in FILES:
        file = present(folder, name)
        if file is None:
            raise BadIdx(f"{folder / name}[.gz] is missing, while other files of its set are there")
        count = info.train if name in (TRAIN_IMAGES, TRAIN_LABELS) else info.test
        is_images = name in (TRAIN_IMAGES, TEST_IMAGES)
        array = read_file(file, (count, *info.shape[1:]) if is_images else (count,))
        if not is_images and array.max() >= info.classes:
            raise BadIdx(
                f"{file} holds the label {array.max()}; expected labels 0 to {info.classes - 1}"
            )
        _check_hash(file, name, array, source)
        arrays[name] = array
    return arrays


def read_file(file: Path, shape: tuple[int, ...]) -> Array:
    """The array in one IDX file.

    Args:
        file: Gzipped exactly if its name ends in ``.gz``.
        shape: The shape it must have.

    Returns:
        A uint8 array of that shape.

    Raises:
        BadIdx: The file cannot be read, or is no IDX file of uint8 of that shape and length.
    """
    content = _decoded(file)
    magic = bytes((0, 0, UINT8, len(shape)))
    if content[:4] != magic:
        raise BadIdx(
            f"{file} begins with the bytes {content[:4].hex() or '(none)'}; "
            f"expected {magic.hex()}, an IDX file of uint8 in {len(shape)} dimension(s)"
        )
    header = 4 + 4 * len(shape)
    if len(content) < header:
        raise BadIdx(f"{file} ends within its header, after {len(content)} bytes")
    found = struct.unpack(f">{len(shape)}I", content[4:header])
    if found != shape:
        raise BadIdx(f"{file} has the shape {_times(found)}; expected {_times(shape)}")
    expected = header + math.prod(shape)
    if len(content) != expected:
        raise BadIdx(f"{file} decodes to {len(content)} bytes; expected {expected}")
    # a copy, because arrays over bytes are read-only and torch wants none of those
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()


def _decoded(file: Path) -> bytes:
    try:
        content = file.read_bytes()
        return gzip.decompress(content) if file.suffix == ".gz" else content
    except EOFError:
        raise BadIdx(f"{file} is a truncated gzip file; expected a whole one") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise BadIdx(f"{file} is no intact gzip file ({error})") from None
    except OSError as error:
        raise BadIdx(f"{file} cannot be read ({error.strerror or error})") from None


def _check_hash(file: Path, name: str, array: Array, source: IdxSource) -> None:
    found = hashlib.sha256(array.data).hexdigest()
    if found in source.impostors:
        raise BadIdx(
            f"{file} holds the images of {source.impostors[found]}, whose files have the same "
            f"names; expected {source.info.name}"
        )
    expected = source.sha256.get(name, found)
    if found != expected:
        raise BadIdx(
            f"{file} decodes to an array of SHA-256 {found[:12]}; expected {expected[:12]}, "
            f"the official {source.info.name}"
        )


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
