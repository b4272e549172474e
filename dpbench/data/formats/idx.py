"""IDX files of uint8 (the format of MNIST), read strictly.

Format: two zero bytes, the element type (0x08 for uint8), the number of dimensions, each
dimension as a big-endian uint32, then the elements in C order
(http://yann.lecun.com/exdb/mnist/, "the IDX file format"). torchvision's reader opens no
gzipped file and checks its input by ``assert``, without a message.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpbench.core.errors import UserError
from dpbench.core.regular import open_regular

UINT8 = 0x08


class BadIdx(Exception):
    """A bad file: one line that names the file, what is wrong with it and what was expected."""


def read_file(file: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read the array in one IDX file.

    Args:
        file: Gzipped exactly if its name ends in ``.gz``.
        shape: The shape that the array must have.

    Returns:
        A writable uint8 array of that shape.

    Raises:
        BadIdx: The file cannot be read, or is no IDX file of uint8 of that shape and length.
    """
    header = 4 + 4 * len(shape)
    expected = header + math.prod(shape)
    content = _read_bytes(file, expected + 1)  # a small gzip file may decompress to anything
    magic = bytes((0, 0, UINT8, len(shape)))
    if content[:4] != magic:
        raise BadIdx(
            f"{file} begins with the bytes {content[:4].hex() or '(none)'}; "
            f"expected {magic.hex()}, an IDX file of uint8 in {len(shape)} dimension(s)"
        )
    if len(content) < header:
        raise BadIdx(f"{file} ends within its header, after {len(content)} bytes")
    found = struct.unpack(f">{len(shape)}I", content[4:header])
    if found != shape:
        raise BadIdx(f"{file} has the shape {_times(found)}; expected {_times(shape)}")
    if len(content) != expected:
        found_size = f"more than {expected}" if len(content) > expected else f"{len(content)}"
        raise BadIdx(f"{file} decodes to {found_size} bytes; expected {expected}")
    # a copy, because arrays over bytes are read-only and torch warns of those
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()


def _read_bytes(file: Path, most: int) -> bytes:
    try:
        with open_regular(file) as handle:
            if file.suffix != ".gz":
                return handle.read(most)
            with gzip.GzipFile(fileobj=handle) as unpacked:
                return unpacked.read(most)
    except UserError as error:
        raise BadIdx(str(error)) from None
    except EOFError:
        raise BadIdx(f"{file} is a truncated gzip file; expected a whole one") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise BadIdx(f"{file} is no intact gzip file ({error})") from None
    except OSError as error:
        raise BadIdx(f"{file} cannot be read ({error.strerror or error})") from None


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
