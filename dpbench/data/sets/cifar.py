"""CIFAR-10 from its Python batches (https://www.cs.toronto.edu/~kriz), found or downloaded."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from dpbench.core.errors import UserError
from dpbench.core.files import cache_path, md5_of
from dpbench.core.progress import Progress
from dpbench.data import catalog
from dpbench.data.arrays import LabelledPixels, Original
from dpbench.data.catalog import DatasetInfo
from dpbench.data.fetch import mirrors
from dpbench.data.formats.pickles import read_batch
from dpbench.data.roots import locate, not_found

# torchvision's: not imported, which takes seconds
_TRAIN_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
}
_TEST_MD5 = {"test_batch": "40351d587109b95175f43aff81a1287e"}
FOLDER = "cifar-10-batches-py"
BATCHES = {"train": tuple(_TRAIN_MD5), "test": tuple(_TEST_MD5)}
MD5: Mapping[str, str] = _TRAIN_MD5 | _TEST_MD5
ARCHIVE = "cifar-10-python.tar.gz"
ARCHIVE_MD5 = "c58f30108f718f92721af3b95e74349a"
MEGABYTES = 170.5
MIRROR = "https://www.cs.toronto.edu/~kriz/"


GET = f"downloaded when it is first used, {MEGABYTES:g} MB"


def located(data_root: Path | None) -> Path | None:
    """The folder that holds CIFAR-10, or None; nothing is downloaded."""
    name = catalog.CIFAR10.name
    return locate(name, (FOLDER, f"{name}/{FOLDER}"), MD5, data_root)


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
    folder = located(data_root)
    if folder is None:
        folder = _download(info, progress)

    def decode(split: str) -> Iterator[LabelledPixels]:
        for name in BATCHES[split]:
            _check_md5(folder / name, md5[name])
            yield read_batch(folder / name, info)

    return Original(info, folder, tuple(md5), "batches of CIFAR-10", decode)


def _check_md5(file: Path, expected: str) -> None:
    found = md5_of(file)
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
