"""Large data sets, decoded once to arrays on disk and mapped into memory from then on.

Mapped pages belong to the files: the operating system reads them on access and may drop them
again, so a data set of any size takes no memory of the run's own.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dpbench.core.errors import UserError, out_of_memory
from dpbench.core.files import cache_path, locked, safe_name
from dpbench.core.images import Images, Splits, content_hash
from dpbench.core.progress import Progress, Silent, Task
from dpbench.data.catalog import DatasetInfo

HASH = "sha256"
FORMAT = 1  # version of the cache: changes with the names or contents of its files

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]
LabelledPixels = tuple[Pixels, Labels]


@dataclass(frozen=True)
class Original:
    """A data set in the files that it was published in, found but not decoded yet.

    Attributes:
        info: What the files must hold.
        folder: Folder of the files.
        files: Paths of the files in ``folder``.
        recipe: Name of the decoding; changes whenever decoding would give other arrays.
        decode: Yields a split (``train``, ``validation`` or ``test``) in batches: pixels
            ``(n, C, H, W)``, uint8, and labels ``(n,)``, int64, in [0, classes). Raises UserError
            if a file does not hold what it should.
    """

    info: DatasetInfo
    folder: Path
    files: Sequence[str]
    recipe: str
    decode: Callable[[str], Iterator[LabelledPixels]]

    @property
    def counts(self) -> dict[str, int]:
        """Number of images by split, for the splits that the data set has."""
        info = self.info
        counts = {"train": info.train, "test": info.test, "validation": info.validation}
        return {split: count for split, count in counts.items() if count}


@dataclass(frozen=True)
class Mapped:
    """A data set whose images are mapped files.

    Attributes:
        splits: Its official splits. Writing to a tensor changes neither the files nor what other
            processes see.
        content_hash: ``images.content_hash`` of the train, test and validation images.
    """

    splits: Splits
    content_hash: str


def mapped(original: Original, progress: Progress) -> Mapped:
    """Map a data set's arrays, after decoding them into the user's cache if they are not there.

    The cache identifies the files by path in the folder, size and the times of modification and of
    change of status; archives restore the former alone. Arrays that are no longer what was decoded
    are decoded again.

    Args:
        original: The data set.
        progress: Receives progress updates of decoding.

    Raises:
        UserError: A file is missing or does not hold what it should, or the cache cannot be
            written.
    """
    name = f"{safe_name(original.info.name)[:40]}-{_identity(original)[:16]}"
    folder = cache_path() / "arrays" / name

    def waiting() -> None:
        progress.note(f"waiting for another process that decodes {original.info.name}")

    found = _find(original, folder, progress)
    if found is not None:
        return found
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(f".{name}.lock"), waiting):
            found = _find(original, folder, Silent())  # another process may have decoded it
            if found is None:
                _write(original, folder, progress)
                found = _open(original, folder)
    except OSError as error:
        raise UserError(
            f"cannot write the cache {folder} ({error.strerror or error}): make room, or name "
            "another place with XDG_CACHE_HOME"
        ) from error
    return found


def _identity(original: Original) -> str:
    info = original.info
    made_of = (FORMAT, original.recipe, info.shape, info.classes, original.counts)
    digest = hashlib.sha256(repr(made_of).encode())
    for name in original.files:
        file = os.path.join(original.folder, name)  # noqa: PTH118 (there may be half a million)
        try:
            status = os.stat(file)  # noqa: PTH116
        except OSError as error:
            raise UserError(
                f"{file} cannot be read ({error.strerror}); expected all files of "
                f"{info.name}: replace {original.folder} with an intact copy"
            ) from None
        times = f"{status.st_mtime_ns}\0{status.st_ctime_ns}"
        digest.update(os.fsencode(f"{name}\0{status.st_size}\0{times}\n"))
    return digest.hexdigest()


def _write(original: Original, folder: Path, progress: Progress) -> None:
    """Decode into a folder beside ``folder``, and rename that folder once it is complete."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # leftovers of a killed process
    partial.mkdir()
    try:
        counts = original.counts
        with progress.task(f"decode {original.info.name}", sum(counts.values()), "images") as task:
            for split, count in counts.items():
                _write_split(original, split, count, partial, task)
        parts = [_open_split(original, split, partial) for split in counts]
        with (partial / HASH).open("w", encoding="ascii") as handle:
            handle.write(content_hash(*parts))
            handle.flush()
            os.fsync(handle.fileno())
        shutil.rmtree(folder, ignore_errors=True)  # damaged
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _write_split(original: Original, split: str, count: int, folder: Path, task: Task) -> None:
    shape = (count, *original.info.shape)
    labels = np.empty(count, np.int64)
    done = 0
    pixels_file, labels_file = _files(split, folder)
    # written in order, because a write through a mapping kills the process if the disk is full
    with pixels_file.open("wb") as handle:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(handle, header)
        for some, their_labels in original.decode(split):
            if done + len(some) > count:
                raise _miscounted(original, split, f"more than {count}")
            handle.write(np.ascontiguousarray(some).data)
            labels[done : done + len(some)] = their_labels
            done += len(some)
            task.advance(len(some))
        if done < count:
            raise _miscounted(original, split, f"{done}")
        handle.flush()
        os.fsync(handle.fileno())
    with labels_file.open("wb") as handle:
        np.save(handle, labels)
        handle.flush()
        os.fsync(handle.fileno())


def _miscounted(original: Original, split: str, found: str) -> UserError:
    return UserError(
        f"{original.folder} holds {found} {split} images; expected "
        f"{original.counts[split]}, as {original.info.name} has: replace it with an intact copy"
    )


def _find(original: Original, folder: Path, progress: Progress) -> Mapped | None:
    """Open the arrays in a folder; None if there are none that are what was decoded."""
    if not folder.is_dir():
        return None
    try:
        return _open(original, folder)
    except Exception as error:  # damaged arrays may be anything
        if out_of_memory(error):
            raise
        progress.note(f"the cache {folder} cannot be used ({error}): it is made again")
        return None


def _open(original: Original, folder: Path) -> Mapped:
    """Open the arrays in a folder.

    Raises:
        ValueError: They are not what was decoded.
    """
    parts = {split: _open_split(original, split, folder) for split in original.counts}
    digest = (folder / HASH).read_text(encoding="ascii")
    if content_hash(*parts.values()) != digest:
        raise ValueError("its checksum does not fit")
    splits = Splits(parts["train"], parts.get("validation"), parts["test"])
    return Mapped(splits, digest)


def _open_split(original: Original, split: str, folder: Path) -> Images:
    # "c" (copy on write): a write by mistake stays in this process; after "r" it would crash it
    pixels, labels = (
        np.load(file, mmap_mode="c", allow_pickle=False) for file in _files(split, folder)
    )
    count = original.counts[split]
    if pixels.shape != (count, *original.info.shape) or labels.shape != (count,):
        raise ValueError(f"{split} arrays of shapes {pixels.shape} and {labels.shape}")
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels))


def _files(split: str, folder: Path) -> tuple[Path, Path]:
    return folder / f"{split}-pixels.npy", folder / f"{split}-labels.npy"
