"""CIFAR-10 from its Python batches (https://www.cs.toronto.edu/~kriz), found or downloaded."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from torchvision import datasets
from torchvision.datasets.utils import calculate_md5

from dpbench.core.errors import UserError
from dpbench.core.files import cache_path
from dpbench.core.progress import Progress
from dpbench.data import catalog
from dpbench.data.arrays import LabelledPixels, Original
from dpbench.data.catalog import DatasetInfo
from dpbench.data.fetch import mirrors
from dpbench.data.formats.pickles import read_batch
from dpbench.data.roots import locate, not_found

_CIFAR10 = datasets.CIFAR10
FOLDER: str = _CIFAR10.base_folder
BATCHES = {"train": tuple(dict(_CIFAR10.train_list)), "test": tuple(dict(_CIFAR10.test_list))}
MD5: Mapping[str, str] = dict(_CIFAR10.train_list) | dict(_CIFAR10.test_list)
ARCHIVE: str = _CIFAR10.filename
ARCHIVE_MD5: str = _CIFAR10.tgz_md5
MEGABYTES = 170.5
MIRROR: str = _CIFAR10.url.removesuffix(ARCHIVE)


def find(
    data_root: Path | None,
    progress: Progress,
    info: DatasetInfo = catalog.CIFAR10,
    md5: Mapping[str, str] = MD5,
) -> Original:
    """Find CIFAR-10, or download it into the user's cache.

    Args:
        data_root: The user's own folder, searched first.
        progress: Receives progress updates of a download.
        info: What the files must hold.
        md5: MD5 of each batch, from torchvision.

    Raises:
        UserError: The data set was not found and cannot be downloaded.
    """
    folder = locate(info.name, (FOLDER, f"{info.name}/{FOLDER}"), md5, data_root)
    if folder is None:
        folder = _download(info, progress)

    def decode(split: str) -> Iterator[LabelledPixels]:
        for name in BATCHES[split]:
            _check_md5(folder / name, md5[name])
            yield read_batch(folder / name, info)

    return Original(info, folder, tuple(md5), "batches of CIFAR-10", decode)


def _check_md5(file: Path, expected: str) -> None:
    found = calculate_md5(file)
    if found != expected:
        raise UserError(
            f"{file} has MD5 {found[:12]}; expected {expected[:12]}, the official cifar10: "
            "replace it with an intact copy"
        )


def _download(info: DatasetInfo, progress: Progress) -> Path:
    cache = cache_path() / info.name
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".download-", dir=cache) as temporary:
            folder = Path(temporary)
            mirrors.fetch(MIRROR, info.name, {ARCHIVE: ARCHIVE_MD5}, MEGABYTES, folder, progress)
            unpacked = folder / FOLDER
            _unpack(folder / ARCHIVE, unpacked)
            unpacked.rename(cache / FOLDER)
    except (OSError, tarfile.TarError) as error:
        raise not_found(
            info.name,
            f"{MIRROR}{ARCHIVE} could not be downloaded ({' '.join(str(error).split())}); get "
            f"it by other means, unpack it to a folder {FOLDER}",
        ) from None
    return cache / FOLDER


def _unpack(archive: Path, folder: Path) -> None:
    """Take the batches, and nothing else, out of the archive."""
    folder.mkdir()
    with tarfile.open(archive) as content:
        for name in MD5:
            try:
                batch = content.extractfile(f"{FOLDER}/{name}")
            except KeyError:
                batch = None
            if batch is None:
                raise OSError(f"{archive.name} holds no {name}")
            (folder / name).write_bytes(batch.read())
