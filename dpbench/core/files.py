"""Atomic writes, locks, hashes and the user's cache."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dpbench.core.errors import UserError

LONGEST_NAME = 160  # bytes: leaves room for what is added to a name, of the 255 there are


def replace_atomically(file: Path, write: Callable[[Path], None], mode: int | None = None) -> None:
    """Replace ``file`` so that readers see the old or the new content, whenever a crash happens.

    Args:
        file: The file to replace.
        write: Writes the new content to the path it is given (in the same folder, so that renaming
            is atomic).
        mode: Permission bits, set before any content is written.
    """
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        if mode is not None:
            os.close(os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode))
        write(partial)
        with partial.open("rb+") as handle:
            os.fsync(handle.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def write_text(file: Path, text: str, mode: int | None = None) -> None:
    """Write text to ``file`` atomically."""
    write_bytes(file, text.encode(), mode)


def write_bytes(file: Path, content: bytes, mode: int | None = None) -> None:
    """Write bytes to ``file`` atomically."""

    def write(partial: Path) -> None:
        partial.write_bytes(content)

    replace_atomically(file, write, mode)


def write_all(files: Mapping[Path, bytes]) -> None:
    """Write several files, each atomically, and none of them if one cannot be written."""
    partials = {file: file.with_name(f".{file.name}.{os.getpid()}.partial") for file in files}
    try:
        for file, content in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            with partials[file].open("wb") as handle:
                handle.write(content)
                os.fsync(handle.fileno())
        for file, partial in partials.items():
            partial.replace(file)
    finally:
        for partial in partials.values():
            partial.unlink(missing_ok=True)


def remove_partials(folder: Path) -> None:
    """Remove what killed processes were writing below a folder in which no other is writing."""
    for partial in folder.rglob(".*.partial"):
        if re.fullmatch(r"\..+\.\d+\.partial", partial.name) and partial.is_file():
            partial.unlink()


def write_arrays(file: Path, arrays: Mapping[str, Any], compressed: bool = False) -> None:
    """``numpy.savez``, or ``numpy.savez_compressed``, to ``file`` atomically."""
    import numpy as np  # not at the top: records are read and written without it

    save = np.savez_compressed if compressed else np.savez

    def write(partial: Path) -> None:
        # through a handle, because NumPy appends .npz to other names
        with partial.open("wb") as handle:
            save(handle, **arrays)

    replace_atomically(file, write)


def check_writable(folder: Path, instead: str) -> None:
    """Check that a folder can be written, before work is put into what it is to hold.

    Nothing is made: where the folder is not there yet, the nearest one above it is tried.

    Args:
        folder: The folder.
        instead: What the user can do if it cannot, such as "choose another --out".

    Raises:
        UserError: It cannot be written.
    """
    try:
        place = folder
        while not place.exists() and place != place.parent:
            place = place.parent
        probe = place / f".{os.getpid()}.probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; {instead}") from error


@contextlib.contextmanager
def locked(file: Path, occupied: Callable[[], None]) -> Iterator[None]:
    """Keep other processes out of whatever ``file`` stands for, inside the block.

    The lock dies with its process. A file system without locks keeps nobody out.

    Args:
        file: The lock file: made here, and removed when the block ends.
        occupied: Called where another process has the lock, before waiting for it; raise there in
            order not to wait.
    """
    from filelock import (  # slow to import, and most of what reads files needs none
        FileLock,
        Timeout,
    )

    lock = FileLock(file, fallback_to_soft=False)

    def acquired(wait: bool) -> bool:
        try:
            lock.acquire(blocking=wait)
        except Timeout:
            return False
        except OSError:  # a file system that has no locks
            pass
        return True

    if not acquired(wait=False):
        occupied()
        acquired(wait=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink()  # before others can lock it: those who wait make a new one
        lock.release()


def sha256(file: Path) -> str:
    """SHA-256 of a file's content, as 64 hex digits."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def md5_of(file: Path) -> str:
    """MD5 of a file's content, as 32 hex digits: it detects accidents, not forgeries."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "md5").hexdigest()


def safe_name(name: str) -> str:
    """A name as one part of a path: all but letters, digits and ``_.+-`` becomes ``-``.

    Names that stand for a folder, such as ``..``, and names that file systems find too long become
    others too.
    """
    safe = re.sub(r"[^\w.+-]+|^\.{0,2}$", "-", name)
    if len(safe.encode()) <= LONGEST_NAME:
        return safe
    return f"{safe[: LONGEST_NAME // 8]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def cache_path() -> Path:
    """Absolute path of the user's cache, ``$XDG_CACHE_HOME/dpbench``, which may not exist.

    Everything in it can be made again: see ``core.cache``.
    """
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base).absolute() / "dpbench"
    try:
        return Path.home().absolute() / ".cache" / "dpbench"
    except RuntimeError:  # a user without a home folder has no cache: nothing is ever made there
        return Path(os.devnull) / "dpbench"
