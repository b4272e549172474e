"""Read samples that were made elsewhere, and check that evaluators can take them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dpbench.core import npz
from dpbench.core.errors import UserError
from dpbench.core.images import Images
from dpbench.core.npz import Array, Header
from dpbench.core.progress import Progress
from dpbench.data.catalog import DatasetInfo
from dpbench.data.formats import folders

IMAGES, LABELS = "images", "labels"


def read_samples(path: Path, info: DatasetInfo, most: int, progress: Progress) -> Images:
    """Read samples from a folder of images or an ``.npz`` file.

    Args:
        path: A folder with a sub-folder of images for each class (as ``folders.samples`` reads
            it), or an ``.npz`` file with integer arrays: ``images`` of shape ``(N, C, H, W)``,
            ``(N, H, W, C)`` or, if C is 1, ``(N, H, W)``, and ``labels`` of shape ``(N,)``, the
            position of each class in ``info.class_names``.
        info: The data set that the samples imitate.
        most: Largest number of samples, so that a small file cannot ask for much memory.
        progress: Receives progress updates of decoding.

    Returns:
        At least one image.

    Raises:
        UserError: There are no samples at ``path``, or they do not fit the data set.
    """
    if path.is_dir():
        return folders.samples(path, info, most, progress)
    if not path.exists():
        raise UserError(
            f"there is no {path}: give a run's folder, an .npz file, or a folder with a sub-folder "
            "of images for each class"
        )

    def check(headers: Mapping[str, Header]) -> None:
        _check_images(path, headers[IMAGES], info, most)
        _check_labels(path, headers[LABELS], headers[IMAGES].shape[0])

    arrays = npz.read(path, (IMAGES, LABELS), check)
    pixels = _pixels(path, arrays[IMAGES], info)
    return Images(torch.from_numpy(pixels), torch.from_numpy(_labels(path, arrays[LABELS], info)))


def _check_images(file: Path, images: Header, info: DatasetInfo, most: int) -> None:
    if _order(images.shape, info) is None:
        channels, height, width = info.shape
        raise UserError(
            f"{file}: {IMAGES} has shape {images.shape}; samples of {info.name} have shape "
            f"(N, {channels}, {height}, {width}) or (N, {height}, {width}, {channels})"
            + (f" or (N, {height}, {width})" if channels == 1 else "")
        )
    count = images.shape[0]
    if not count:
        raise UserError(f"{file} holds no image; expected at least one")
    if count > most:
        raise UserError(
            f"{file} holds {count:,} images; expected at most {most:,}, ten times as many as runs "
            "of the profile draw: take fewer, or a larger --profile"
        )
    if images.dtype.kind not in "iuf":
        raise UserError(f"{file}: {IMAGES} is {images.dtype}; expected uint8 in [0, 255]")


def _order(shape: tuple[int, ...], info: DatasetInfo) -> tuple[int, ...] | None:
    """The axes of images of a shape in the order ``N, C, H, W``; None if they do not fit."""
    channels, height, width = info.shape
    if shape[1:] == info.shape:
        return (0, 1, 2, 3)
    if shape[1:] == (height, width, channels):
        return (0, 3, 1, 2)
    if channels == 1 and shape[1:] == (height, width):
        return (0, 1, 2)
    return None


def _pixels(file: Path, images: Array, info: DatasetInfo) -> NDArray[np.uint8]:
    """The images as ``(N, C, H, W)``, uint8."""
    if images.dtype.kind == "f":
        raise UserError(f"{file}: {IMAGES} is {images.dtype} {_float_range(images)}")
    low, high = int(images.min()), int(images.max())
    if low < 0 or high > 255 or high == 1:  # only 0 and 1: intensities that were not scaled
        raise UserError(
            f"{file}: {IMAGES} has values from {low} to {high}; expected uint8 in [0, 255]"
        )
    ordered = images.transpose(_order(images.shape, info))
    return np.ascontiguousarray(ordered, np.uint8).reshape(-1, *info.shape)


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


def _check_labels(file: Path, labels: Header, count: int) -> None:
    if labels.shape != (count,):
        raise UserError(
            f"{file}: {LABELS} has shape {labels.shape}; expected ({count},), one class for each "
            "image"
        )
    if labels.dtype.kind not in "iu":
        raise UserError(
            f"{file}: {LABELS} is {labels.dtype}; expected whole numbers, such as int64"
        )


def _labels(file: Path, labels: Array, info: DatasetInfo) -> NDArray[np.int64]:
    """The labels as ``(N,)``, int64."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= info.classes:
        raise UserError(
            f"{file}: {LABELS} has values from {low} to {high}; the classes of {info.name} are "
            f"0 to {info.classes - 1}"
        )
    return labels.astype(np.int64)
