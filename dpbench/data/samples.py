"""Read samples that were made elsewhere, and check that evaluators can take them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dpbench.core.errors import UserError, described
from dpbench.core.images import Images
from dpbench.core.progress import Progress
from dpbench.data.catalog import DatasetInfo
from dpbench.data.formats import folders

IMAGES, LABELS = "images", "labels"

Array = NDArray[Any]


def read_samples(path: Path, info: DatasetInfo, progress: Progress) -> Images:
    """Read samples from a folder of images or an ``.npz`` file.

    Args:
        path: A folder with a sub-folder of images for each class (as ``folders.samples`` reads
            it), or an ``.npz`` file with integer arrays: ``images`` of shape ``(N, C, H, W)``,
            ``(N, H, W, C)`` or, if C is 1, ``(N, H, W)``, and ``labels`` of shape ``(N,)``.
        info: The data set that the samples imitate.
        progress: Receives progress updates of decoding.

    Returns:
        At least one image.

    Raises:
        UserError: There are no samples at ``path``, or they do not fit the data set.
    """
    if path.is_dir():
        return folders.samples(path, info, progress)
    images, labels = _arrays(path)
    pixels = _pixels(path, images, info)
    return Images(
        torch.from_numpy(pixels), torch.from_numpy(_labels(path, labels, len(pixels), info))
    )


def _arrays(file: Path) -> tuple[Array, Array]:
    if not file.exists():
        raise UserError(
            f"there is no {file}: give a run's folder, an .npz file, or a folder with a sub-folder "
            "of images for each class"
        )
    try:
        loaded = np.load(file, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise ValueError("it is one array without a name")
        with loaded:
            if missing := [name for name in (IMAGES, LABELS) if name not in loaded.files]:
                there = ", ".join(loaded.files) or "nothing"
                raise ValueError(f"it holds {there}, but no {' and no '.join(missing)}")
            return loaded[IMAGES], loaded[LABELS]
    except Exception as error:  # a bad file may raise anything
        raise UserError(
            f"{file} is not an .npz file with arrays {IMAGES} and {LABELS}: {described(error)}; "
            "make one with numpy.savez"
        ) from error


def _pixels(file: Path, images: Array, info: DatasetInfo) -> NDArray[np.uint8]:
    """The images as ``(N, C, H, W)``, uint8."""
    channels, height, width = info.shape
    if images.shape[1:] == info.shape:
        ordered = images
    elif images.shape[1:] == (height, width, channels):
        ordered = images.transpose(0, 3, 1, 2)
    elif channels == 1 and images.shape[1:] == (height, width):
        ordered = images[:, None]
    else:
        raise UserError(
            f"{file}: {IMAGES} has shape {images.shape}; samples of {info.name} have shape "
            f"(N, {channels}, {height}, {width}) or (N, {height}, {width}, {channels})"
            + (f" or (N, {height}, {width})" if channels == 1 else "")
        )
    if not len(ordered):
        raise UserError(f"{file} holds no image; expected at least one")
    if ordered.dtype.kind == "f":
        raise UserError(f"{file}: {IMAGES} is {ordered.dtype} {_float_range(ordered)}")
    if ordered.dtype.kind not in "iu":
        raise UserError(f"{file}: {IMAGES} is {ordered.dtype}; expected uint8 in [0, 255]")
    low, high = int(ordered.min()), int(ordered.max())
    if low < 0 or high > 255 or high == 1:  # only 0 and 1: intensities that were not scaled
        raise UserError(
            f"{file}: {IMAGES} has values from {low} to {high}; expected uint8 in [0, 255]"
        )
    return np.ascontiguousarray(ordered, np.uint8)


def _float_range(images: Array) -> str:
    """The end of the message about float images: their range, and how to convert them."""
    if not np.isfinite(images).all():
        return "with NaN or infinite values; expected uint8 in [0, 255]"
    low, high = float(images.min()), float(images.max())
    if low < -1 or high > 255 or (low < 0 and high > 1):
        how = "scale them to [0, 255] and round"
    elif low < 0:
        how = "convert with numpy.round(127.5 * (x + 1)).astype(numpy.uint8)"
    elif high <= 1:
        how = "convert with numpy.round(255 * x).astype(numpy.uint8)"
    else:
        how = "convert with numpy.round(x).astype(numpy.uint8)"
    return f"with values from {low:.4g} to {high:.4g}; expected uint8 in [0, 255]: {how}"


def _labels(file: Path, labels: Array, count: int, info: DatasetInfo) -> NDArray[np.int64]:
    """The labels as ``(N,)``, int64."""
    if labels.shape != (count,):
        raise UserError(
            f"{file}: {LABELS} has shape {labels.shape}; expected ({count},), one class for each "
            "image"
        )
    if labels.dtype.kind not in "iu":
        raise UserError(
            f"{file}: {LABELS} is {labels.dtype}; expected whole numbers, such as int64"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= info.classes:
        raise UserError(
            f"{file}: {LABELS} has values from {low} to {high}; the classes of {info.name} are "
            f"0 to {info.classes - 1}"
        )
    return labels.astype(np.int64)
