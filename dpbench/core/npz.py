"""Named arrays of an ``.npz`` file, of which only headers are read before anything is unpacked.

``numpy.load`` unpacks whatever a header asks for, and a file of a megabyte can ask for gigabytes.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from dpbench.core.errors import UserError, described
from dpbench.core.regular import open_regular

SUFFIX = ".npy"
LARGEST = 2**27  # bytes of all arrays together that ``read_all`` unpacks
PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those that NumPy writes
FORMATS: dict[tuple[int, int], Callable[[IO[bytes]], Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

Array = NDArray[Any]


@dataclass(frozen=True)
class Header:
    """What an array says of itself.

    Attributes:
        shape: Its shape.
        dtype: Its dtype; never one of Python objects.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize


class Npz:
    """An open ``.npz`` file; from ``opened``."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        """Read the names."""
        self._archive = archive
        self.names = [name.removesuffix(SUFFIX) for name in archive.namelist()]

    def header(self, name: str) -> Header:
        """Read the header of an array.

        Raises:
            ValueError: It is no array, or one of Python objects.
        """
        with self._entry(name) as entry:
            return _header(entry, name)

    def array(self, name: str) -> Array:
        """Unpack an array, which takes as much memory as its header says.

        Raises:
            ValueError: It is no whole array, or one of Python objects.
        """
        with self._entry(name) as entry:
            _header(entry, name)
        with self._entry(name) as entry:
            array: Array = np.lib.format.read_array(entry, allow_pickle=False)
            if entry.read(1):
                raise ValueError(f"{name} is longer than its header says")
            return array

    @contextmanager
    def _entry(self, name: str) -> Iterator[IO[bytes]]:
        if self.names.count(name) > 1:
            raise ValueError(f"it holds {name} more than once")
        info = self._archive.infolist()[self.names.index(name)]
        if info.compress_type not in PACKINGS:
            raise ValueError(f"{name} is compressed in a way that NumPy does not use")
        with self._archive.open(info) as entry:
            yield entry


def read(
    file: Path, names: tuple[str, ...], check: Callable[[Mapping[str, Header]], None]
) -> dict[str, Array]:
    """Read arrays of an ``.npz`` file.

    Args:
        file: A regular file.
        names: Names of the arrays.
        check: Gets their headers, and raises UserError if the arrays are not to be unpacked.

    Raises:
        UserError: The file is no intact ``.npz`` file with these arrays, or ``check`` refused.
    """
    try:
        with open_regular(file) as handle, zipfile.ZipFile(handle) as archive:
            npz = Npz(archive)
            if missing := [name for name in names if name not in npz.names]:
                there = ", ".join(npz.names[:10]) or "nothing"
                raise ValueError(f"it holds {there}, but no {' and no '.join(missing)}")
            check({name: npz.header(name) for name in names})
            return {name: npz.array(name) for name in names}
    except UserError:
        raise
    except Exception as error:  # a bad file may raise anything
        raise UserError(
            f"{file} is not an .npz file with arrays {' and '.join(names)}: {described(error)}; "
            "make one with numpy.savez"
        ) from error


def read_all(source: Path | bytes, largest: int = LARGEST) -> dict[str, Array]:
    """Read all arrays of an archive that anybody may have written.

    Args:
        source: A regular file, or its content.
        largest: Most bytes that the arrays may have together.

    Raises:
        ValueError: It is no intact archive of arrays, or they have more bytes.
        UserError: The file cannot be read.
    """
    with io.BytesIO(source) if isinstance(source, bytes) else open_regular(source) as handle:
        try:
            with zipfile.ZipFile(handle) as archive:
                npz = Npz(archive)
                if sum(npz.header(name).size for name in npz.names) > largest:
                    raise ValueError(f"its arrays have more than {largest:,} bytes")
                return {name: npz.array(name) for name in npz.names}
        except Exception as error:  # a bad file may raise anything
            raise ValueError(described(error)) from error


def _header(entry: IO[bytes], name: str) -> Header:
    version = np.lib.format.read_magic(entry)
    if version not in FORMATS:
        raise ValueError(f"{name} is of the unknown version {version} of the .npy format")
    shape, _, dtype = FORMATS[version](entry)
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, which are never loaded")
    if any(side < 0 for side in shape):
        raise ValueError(f"{name} has the shape {shape}")
    return Header(shape, dtype)
