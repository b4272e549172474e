"""Downsampled ImageNet from its batches (Chrabaszcz et al., 2017, arXiv:1707.08819).

Labels are those of the files minus 1, in the authors' own order of classes. The official validation
images, which have labels, are the test split.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dpbench.core.progress import Progress
from dpbench.data import catalog
from dpbench.data.arrays import LabelledPixels, Original
from dpbench.data.catalog import DatasetInfo
from dpbench.data.formats.pickles import read_batch
from dpbench.data.roots import locate, not_found

BATCHES = {
    "train": tuple(f"train_data_batch_{number}" for number in range(1, 11)),
    "test": ("val_data",),
}
_NAMES = (*BATCHES["train"], *BATCHES["test"])
FIRST_LABEL = 1


GET = (
    "get the 32x32 train and validation data from https://image-net.org/download-images, unpack "
    "train_data_batch_1 to 10 and val_data to a folder imagenet32"
)


def located(data_root: Path | None) -> Path | None:
    """The folder that holds the batches, or None."""
    folders = ("imagenet32", "Imagenet32", "ImageNet32")
    return locate(catalog.IMAGENET32.name, folders, _NAMES, data_root)


def find(
    data_root: Path | None, progress: Progress, info: DatasetInfo = catalog.IMAGENET32
) -> Original:
    """Find the batches, which are available to registered users only.

    Args:
        data_root: The user's own folder, searched first.
        progress: Not used.
        info: What the files must hold.

    Raises:
        UserError: The batches were not found.
    """
    folder = located(data_root)
    if folder is None:
        raise not_found(info.name, GET)

    def decode(split: str) -> Iterator[LabelledPixels]:
        for name in BATCHES[split]:
            yield read_batch(folder / name, info, FIRST_LABEL)

    return Original(info, folder, _NAMES, "batches of downsampled ImageNet", decode)
