"""Files that are either whole or not there."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def replace_atomically(file: Path, write: Callable[[Path], None], mode: int | None = None) -> None:
    """Write ``file`` so that a reader, or a crash at any moment, sees the old or the new content.

    Args:
        file: Where to write.
        write: Writes the content to the path it is given (same folder, so that renaming is
            atomic).
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
    """Write text to ``file``, all or nothing."""
    write_bytes(file, text.encode(), mode)


def write_bytes(file: Path, content: bytes, mode: int | None = None) -> None:
    """Write bytes to ``file``, all or nothing."""

    def write(partial: Path) -> None:
        partial.write_bytes(content)

    replace_atomically(file, write, mode)


def write_torch(file: Path, content: Any, mode: int | None = None) -> None:
    """``torch.save`` to ``file``, all or nothing."""
    import torch  # not at the top: records and leaderboards are written without it

    def write(partial: Path) -> None:
        # through a handle, because torch writes the name of a path into the file
        with partial.open("wb") as handle:
            torch.save(content, handle)

    replace_atomically(file, write, mode)


def write_arrays(file: Path, arrays: Mapping[str, Any], compressed: bool = False) -> None:
    """``numpy.savez`` to ``file``, or ``numpy.savez_compressed``, all or nothing."""
    import numpy as np  # not at the top: see write_torch

    save = np.savez_compressed if compressed else np.savez

    def write(partial: Path) -> None:
        # through a handle, because NumPy appends a suffix to names that it does not like
        with partial.open("wb") as handle:
            save(handle, **arrays)

    replace_atomically(file, write)


def lock(handle: int, wait: bool) -> bool:
    """Keep other processes that lock the same file or folder out of it, until it is closed.

    Args:
        handle: Descriptor of the open file; the lock dies with its process.
        wait: For another process that has the lock, however long it takes.

    Returns:
        False where another process has it. On a file system that has no locks nobody is kept out.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # a file system that has no locks
        pass
    return True


def sha256(file: Path) -> str:
    """Of a file's content, 64 hex digits."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def safe_name(name: str) -> str:
    """A name as one part of a path: letters, digits, ``_``, ``.``, ``+`` and ``-`` stay."""
    return re.sub(r"[^\w.+-]+", "-", name)


def cache_folder() -> Path:
    """Where what can be computed again is kept for this user: ``$XDG_CACHE_HOME/dpbench``."""
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path.home() / ".cache") / "dpbench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
