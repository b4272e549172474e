"""Arrays from an ``.npz`` that anybody may have written: bounded, and without pickles."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpbench.core.errors import described

LARGEST = 2**27  # bytes of all arrays together
# what zipfile and NumPy raise of files that are no archive of arrays
_BROKEN = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, RuntimeError),
    *(OverflowError, NotImplementedError, zipfile.BadZipFile, zlib.error),
)


def read_arrays(source: Path | bytes, largest: int = LARGEST) -> dict[str, NDArray[Any]]:
    """Read all arrays of an archive.

    Args:
        source: The file, or its content.
        largest: Most bytes that the arrays may have together; no more is taken before that is
            known.

    Returns:
        The arrays by name.

    Raises:
        ValueError: It is no such archive.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            members = file.infolist()
            if sum(each.file_size for each in members) > largest:
                raise ValueError(f"its arrays have more than {largest:,} bytes")
            # zipfile reads no more than the size that it states
            return {each.filename.removesuffix(".npy"): _array(file.read(each)) for each in members}
    except _BROKEN as error:
        raise ValueError(described(error)) from error


def _array(content: bytes) -> NDArray[Any]:
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, _, dtype = read_header(stream)
    # NumPy takes the memory that the header asks for before it looks at what is there
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
        raise ValueError("an array in it is not of the size that its header states")
    return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
