"""Batches of images in pickle files (CIFAR-10, downsampled ImageNet), read without trusting them.

Unpickling a file runs whatever it names. Here it may build dicts, lists, strings and numbers only;
stand-ins that run nothing take the place of NumPy's array and dtype, and every other name is
refused. No hashes of ImageNet's batches are published; those of CIFAR-10 have passed an MD5 check
before, and are read by the same reader rather than by a second one.
"""

from __future__ import annotations

import math
import pickle
import pickletools
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dpbench.core.errors import UserError, described
from dpbench.core.regular import open_regular
from dpbench.data.arrays import LabelledPixels, Pixels
from dpbench.data.catalog import DatasetInfo

# A batch has a dozen tuples, and a place in the memo for each name. More would be an attack: the
# hash of tuples in tuples takes time, and a place in the memo memory, that no file size bounds.
MOST_TUPLES = 30
MOST_MEMORISED = 2**22


class _StandIn:
    """Keeps its arguments and state; runs nothing."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    # defined on the class so that a pickle cannot set attributes, here or on the class
    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(_StandIn):
    """Takes the place of ``numpy.ndarray`` and of the function that makes an empty one."""


class _Dtype(_StandIn):
    """Takes the place of ``numpy.dtype``."""


class _Latin1(_StandIn):
    """Takes the place of ``codecs.encode``, by which Python 3 writes bytes for Python 2."""

    def __new__(cls, text: str, encoding: str) -> Any:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"bytes written as {encoding}")
        return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], type[_StandIn]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("_codecs", "encode"): _Latin1,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[_StandIn]:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it refers to {module}.{name}, which may run anything"
            ) from None


def read_batch(file: Path, info: DatasetInfo, first_label: int = 0) -> LabelledPixels:
    """Read one batch of images.

    Args:
        file: A pickled dict with ``data``, a uint8 array ``(n, C * H * W)``, and ``labels``, a list
            of ``n`` integers; written by Python 2 or 3.
        info: Shape of an image and number of classes that the batch must have.
        first_label: The file's label of class 0.

    Returns:
        Pixels ``(n, C, H, W)``, uint8, and labels ``(n,)``, int64, in [0, classes).

    Raises:
        UserError: The file cannot be read, holds something else, or names anything but arrays.
    """
    try:
        with open_regular(file) as handle:
            _check_size(handle)
            # as bytes, because pixels that Python 2 wrote are strings
            content = _Unpickler(handle, encoding="bytes").load()
        batch = {_text(key): value for key, value in content.items()}
        pixels, labels = _pixels(batch["data"]), batch["labels"]
        if not isinstance(labels, list) or not all(isinstance(label, int) for label in labels):
            raise TypeError("its labels are no list of integers")
    except UserError:
        raise
    except Exception as error:  # a bad file may raise anything
        raise UserError(
            f"{file} is no intact batch of {info.name} ({described(error)}); expected "
            "a pickled dict with data and labels: replace it with an intact copy"
        ) from None
    width = math.prod(info.shape)
    if pixels.shape != (len(labels), width):
        raise UserError(
            f"{file} holds {len(labels)} labels and data of shape "
            f"{'x'.join(map(str, pixels.shape))}; expected {width} bytes for each label"
        )
    if wrong := [label for label in labels if not 0 <= label - first_label < info.classes]:
        raise UserError(
            f"{file} holds the label {wrong[0]}; expected labels {first_label} to "
            f"{first_label + info.classes - 1}"
        )
    return pixels.reshape(-1, *info.shape), np.array(labels, np.int64) - first_label


def _check_size(handle: BinaryIO) -> None:
    """Check that unpickling takes time and memory in proportion to the file, and rewind it."""
    tuples = 0
    for opcode, argument, _ in pickletools.genops(handle):
        tuples += opcode.name.startswith("TUPLE")
        if tuples > MOST_TUPLES:
            raise pickle.UnpicklingError("it holds too many tuples")
        if opcode.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > MOST_MEMORISED:
            raise pickle.UnpicklingError("it memorises too many objects")
    handle.seek(0)


def _pixels(array: Any) -> Pixels:
    """The array that a stand-in describes.

    The state of a stand-in is (version, shape, dtype, whether in Fortran order, bytes).
    """
    if not isinstance(array, _Array):
        raise TypeError("its data is no array")
    _, shape, dtype, fortran, content = array.state
    if not isinstance(dtype, _Dtype) or _text(dtype.arguments[0]) != "u1":
        raise TypeError("its data is no array of uint8")
    if not isinstance(content, bytes):
        raise TypeError("its data has no bytes")
    return np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")


def _text(name: Any) -> Any:
    return name.decode("ascii") if isinstance(name, bytes) else name
