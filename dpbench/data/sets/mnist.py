"""MNIST and Fashion-MNIST: four IDX files each, found in a folder or downloaded.

Places are tried in order: the user's data root, the cache, the folder of the Debian package; then
downloads from the mirrors and of the Debian package, into the cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from dpbench.core.errors import UserError
from dpbench.core.files import cache_path
from dpbench.core.progress import Progress
from dpbench.data import catalog
from dpbench.data.catalog import DatasetInfo
from dpbench.data.fetch import debian, mirrors
from dpbench.data.formats.idx import BadIdx, read_file
from dpbench.data.roots import user_root

TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"
FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)

Arrays = dict[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class IdxSet:
    """Where a data set in four IDX files is found, and what must be in them.

    Attributes:
        info: Counts, shape and number of classes that the files must have.
        folders: Where below a data root the files may lie, besides in the data root itself.
        sha256: SHA-256 of each decoded array (no header), by name in ``FILES``; empty where the
            true values are not known.
        impostors: SHA-256 of the decoded train images of other data sets that use the same file
            names, to the name of the data set.
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


# measured on the decoded arrays of Debian's dataset-fashion-mnist 0.0~git20200523.55506a9-1, whose
# gzipped files have torchvision's MD5 once the name and date that Debian left out are put back
FASHIONMNIST_SHA256 = {
    "train-images-idx3-ubyte": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
    "train-labels-idx1-ubyte": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
    "t10k-images-idx3-ubyte": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
    "t10k-labels-idx1-ubyte": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
}
# torchvision's, and so are the mirrors: not imported, which takes seconds
FASHIONMNIST_MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
MNIST_MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}

IDX_SETS = {
    "fashionmnist": IdxSet(
        info=catalog.FASHIONMNIST,
        folders=("FashionMNIST/raw", "fashionmnist", "fashion-mnist"),
        sha256=FASHIONMNIST_SHA256,
        mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        md5=FASHIONMNIST_MD5,
        megabytes=30.9,
        debian_package="dataset-fashion-mnist",
        debian_folder=Path("/usr/share/datasets/fashion-mnist"),
    ),
    # no hashes of decoded arrays are pinned for MNIST, because none were measured: downloads are
    # verified by torchvision's MD5 of the gzipped files, files found in folders by their shape,
    # counts and labels only
    "mnist": IdxSet(
        info=catalog.MNIST,
        folders=("MNIST/raw", "mnist"),
        impostors={FASHIONMNIST_SHA256["train-images-idx3-ubyte"]: "fashionmnist"},
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "http://yann.lecun.com/exdb/mnist/",
        ),
        md5=MNIST_MD5,
        megabytes=11.6,
    ),
}


@dataclass(frozen=True)
class Place:
    """Folders on this machine where a data set may lie.

    Attributes:
        name: How messages call it.
        folders: Where to look, in order.
        advice: What to do about a bad file.
        filled_by_us: Whether missing and damaged files can be downloaded, so are no mistake of the
            user's.
    """

    name: str
    folders: tuple[Path, ...]
    advice: str
    filled_by_us: bool = False

    def find(self) -> Path | None:
        """The first folder that holds the data set, or None."""
        holds = all if self.filled_by_us else any
        for folder in self.folders:
            if holds(present(folder, name) for name in FILES):
                return folder
        return None


def located(wanted: IdxSet, data_root: Path | None) -> Path | None:
    """The folder that holds a data set, or None; nothing is downloaded."""
    places = (place.find() for place in _places(wanted, data_root))
    return next((folder for folder in places if folder is not None), None)


def find(wanted: IdxSet, data_root: Path | None, progress: Progress) -> tuple[Arrays, str]:
    """Read a data set from the first place that has it; download it where no folder does.

    Args:
        wanted: The data set.
        data_root: The user's own folder; None for the environment's ``DPBENCH_DATA``.
        progress: Receives progress updates of downloads.

    Returns:
        The arrays as ``read_folder`` gives them, and where they were found.

    Raises:
        UserError: A folder holds bad files, or the data set is found nowhere.
    """
    tried = []
    for place in _places(wanted, data_root):
        try:
            folder = place.find()
            if folder is not None:
                return read_folder(folder, wanted), str(folder)
            tried.append(f"{place.name}: not there")
        except BadIdx as error:
            if place.filled_by_us:
                tried.append(f"{place.name}: {error}")
                progress.note(f"{error}: it is downloaded again")
                continue
            raise UserError(f"{error}; {place.advice}") from None
        except OSError as error:
            tried.append(f"{place.name}: {error.strerror}")

    cache = _cache(wanted)
    for name, attempt in _downloads(wanted, progress):
        try:
            return _install(attempt, wanted, cache), f"{cache} (from {name})"
        except (OSError, BadIdx) as error:
            tried.append(f"{name}: {error}")
    reasons = " ".join(" | ".join(tried).split())
    raise UserError(
        f"{wanted.info.name} could not be obtained ({reasons}); put its four IDX files in a "
        "folder and name that with --data-root, or try --dataset digits, which needs no download"
    )


def present(folder: Path, name: str) -> Path | None:
    """The file ``name`` in ``folder``, plain or gzipped, or None."""
    candidates = (folder / name, folder / f"{name}.gz")
    return next((file for file in candidates if file.is_file()), None)


def read_folder(folder: Path, wanted: IdxSet) -> Arrays:
    """Read the four arrays of a data set and check them.

    Args:
        folder: Holds the files, plain or gzipped.
        wanted: The data set.

    Returns:
        By name in ``FILES``: images ``(N, H, W)`` and labels ``(N,)``, uint8.

    Raises:
        BadIdx: A file is missing, cannot be read, or does not hold what it should.
    """
    info = wanted.info
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
        _check_hash(file, name, array, wanted)
        arrays[name] = array
    return arrays


def _check_hash(file: Path, name: str, array: NDArray[np.uint8], wanted: IdxSet) -> None:
    found = hashlib.sha256(array.data).hexdigest()
    if found in wanted.impostors:
        raise BadIdx(
            f"{file} holds the images of {wanted.impostors[found]}, whose files have the same "
            f"names; expected {wanted.info.name}"
        )
    expected = wanted.sha256.get(name, found)
    if found != expected:
        raise BadIdx(
            f"{file} decodes to an array of SHA-256 {found[:12]}; expected {expected[:12]}, "
            f"the official {wanted.info.name}"
        )


def _places(wanted: IdxSet, data_root: Path | None) -> list[Place]:
    places = []
    root = user_root(data_root)
    if root is not None:
        folders = (*(root.folder / folder for folder in wanted.folders), root.folder)
        advice = f"replace it with an intact copy, or name another folder in {root.told_by}"
        places.append(Place(f"{root.told_by} {root.folder}", folders, advice))
    cache = _cache(wanted)
    places.append(Place(f"cache {cache}", (cache,), "", True))
    if wanted.debian_folder is not None:
        advice = f"reinstall the package {wanted.debian_package}"
        places.append(Place(f"system {wanted.debian_folder}", (wanted.debian_folder,), advice))
    return places


def _cache(wanted: IdxSet) -> Path:
    return cache_path() / wanted.info.name


def _downloads(wanted: IdxSet, progress: Progress) -> list[tuple[str, Callable[[Path], Path]]]:
    """Names of downloads, each with a function that fills an empty folder and locates the files."""
    downloads: list[tuple[str, Callable[[Path], Path]]] = []
    for mirror in wanted.mirrors:
        fetch = partial(
            mirrors.fetch,
            mirror,
            wanted.info.name,
            wanted.md5,
            wanted.megabytes,
            progress=progress,
        )
        downloads.append((urlsplit(mirror).netloc, fetch))
    if wanted.debian_package is not None and wanted.debian_folder is not None:
        fetch = partial(
            debian.fetch,
            wanted.debian_package,
            wanted.megabytes,
            wanted.debian_folder,
            progress=progress,
        )
        downloads.append((f"Debian package {wanted.debian_package}", fetch))
    return downloads


def _install(attempt: Callable[[Path], Path], wanted: IdxSet, cache: Path) -> Arrays:
    """Download into a folder inside ``cache``, and keep the files only if they prove right."""
    cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".download-", dir=cache) as temporary:
        folder = attempt(Path(temporary))
        arrays = read_folder(folder, wanted)
        for name in FILES:
            file = present(folder, name)
            assert file is not None  # read_folder has read it
            for damaged in (cache / name, cache / f"{name}.gz"):
                damaged.unlink(missing_ok=True)
            file.replace(cache / file.name)
    return arrays
