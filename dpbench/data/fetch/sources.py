"""Where data sets in IDX files come from, in order: folders of the user's first, then downloads."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from torchvision import datasets

from dpbench.core.errors import UserError
from dpbench.core.progress import Progress
from dpbench.data import catalog
from dpbench.data.fetch import debian, mirrors
from dpbench.data.formats.idx import FILES, Array, BadIdx, IdxSource, present, read_folder
from dpbench.data.roots import user_root

# measured on the decoded arrays of Debian's dataset-fashion-mnist 0.0~git20200523.55506a9-1, whose
# gzipped files have torchvision's MD5 once the name and date that Debian left out are put back
FASHIONMNIST_SHA256 = {
    "train-images-idx3-ubyte": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
    "train-labels-idx1-ubyte": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
    "t10k-images-idx3-ubyte": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
    "t10k-labels-idx1-ubyte": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
}

SOURCES = {
    "fashionmnist": IdxSource(
        info=catalog.FASHIONMNIST,
        folders=("FashionMNIST/raw", "fashionmnist", "fashion-mnist"),
        sha256=FASHIONMNIST_SHA256,
        mirrors=tuple(datasets.FashionMNIST.mirrors),
        md5=dict(datasets.FashionMNIST.resources),
        megabytes=30.9,
        debian_package="dataset-fashion-mnist",
        debian_folder=Path("/usr/share/datasets/fashion-mnist"),
    ),
    # no hashes of decoded arrays are pinned for MNIST, because none were measured: downloads are
    # verified by torchvision's MD5 of the gzipped files, files found in folders by their shape,
    # counts and labels only
    "mnist": IdxSource(
        info=catalog.MNIST,
        folders=("MNIST/raw", "mnist"),
        impostors={FASHIONMNIST_SHA256["train-images-idx3-ubyte"]: "fashionmnist"},
        mirrors=tuple(datasets.MNIST.mirrors),
        md5=dict(datasets.MNIST.resources),
        megabytes=11.6,
    ),
}


@dataclass(frozen=True)
class Place:
    """Folders on this machine where a data set may lie.

    Attributes:
        name: What a person calls it.
        folders: The first one that holds a file of the data set is it.
        advice: What to do about a bad file.
        filled_by_us: Whether missing files can be downloaded, so are no mistake.
    """

    name: str
    folders: tuple[Path, ...]
    advice: str
    filled_by_us: bool = False

    def find(self) -> Path | None:
        """The folder that holds the data set, or None."""
        holds = all if self.filled_by_us else any
        for folder in self.folders:
            if holds(present(folder, name) for name in FILES):
                return folder
        return None


def find(
    source: IdxSource, data_root: Path | None, progress: Progress
) -> tuple[dict[str, Array], str]:
    """Read a data set from the first place that has it; download it where no folder does.

    Args:
        source: Where it may be and what must be in it.
        data_root: The user's own folder; None for the environment's ``DPBENCH_DATA``.
        progress: Who is told.

    Returns:
        The arrays by name in ``idx.FILES``, and where they were found.

    Raises:
        UserError: A folder holds bad files, or no source has the data set.
    """
    tried = []
    for place in _places(source, data_root):
        try:
            folder = place.find()
            if folder is not None:
                return read_folder(folder, source), str(folder)
            tried.append(f"{place.name}: not there")
        except BadIdx as error:
            raise UserError(f"{error}; {place.advice}") from None
        except OSError as error:
            tried.append(f"{place.name}: {error.strerror}")

    cache = _cache(source)
    for name, attempt in _downloads(source, progress):
        try:
            return _install(attempt, source, cache), f"{cache} (from {name})"
        except (OSError, BadIdx) as error:
            tried.append(f"{name}: {error}")
    reasons = " ".join(" | ".join(tried).split())
    raise UserError(
        f"{source.info.name} could not be had ({reasons}); put its four IDX files in a folder and "
        "name that with --data-root, or try --dataset digits, which needs no download"
    )


def _places(source: IdxSource, data_root: Path | None) -> list[Place]:
    places = []
    root = user_root(data_root)
    if root is not None:
        folders = (*(root.folder / folder for folder in source.folders), root.folder)
        advice = f"replace it with an intact copy, or name another folder in {root.told_by}"
        places.append(Place(f"{root.told_by} {root.folder}", folders, advice))
    cache = _cache(source)
    places.append(Place(f"cache {cache}", (cache,), "delete it to have it downloaded again", True))
    if source.debian_folder is not None:
        advice = f"reinstall the package {source.debian_package}"
        places.append(Place(f"system {source.debian_folder}", (source.debian_folder,), advice))
    return places


def _cache(source: IdxSource) -> Path:
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    # absolute, because apt-get runs in another folder
    return Path(caches).absolute() / "dpbench" / source.info.name


def _downloads(source: IdxSource, progress: Progress) -> list[tuple[str, Callable[[Path], Path]]]:
    """Names of downloads, and functions that fill an empty folder and say where the files lie."""
    downloads: list[tuple[str, Callable[[Path], Path]]] = []
    for mirror in source.mirrors:
        fetch = partial(
            mirrors.fetch,
            mirror,
            source.info.name,
            source.md5,
            source.megabytes,
            progress=progress,
        )
        downloads.append((urlsplit(mirror).netloc, fetch))
    if source.debian_package is not None and source.debian_folder is not None:
        fetch = partial(
            debian.fetch,
            source.debian_package,
            source.megabytes,
            source.debian_folder,
            progress=progress,
        )
        downloads.append((f"Debian package {source.debian_package}", fetch))
    return downloads


def _install(attempt: Callable[[Path], Path], source: IdxSource, cache: Path) -> dict[str, Array]:
    """Download into a folder beside the cache's files, and keep what proves to be right."""
    cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".download-", dir=cache) as temporary:
        folder = attempt(Path(temporary))
        arrays = read_folder(folder, source)
        for name in FILES:
            file = present(folder, name)
            assert file is not None  # read_folder has read it
            file.replace(cache / file.name)
    return arrays
