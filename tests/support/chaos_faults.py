"""Troubles of a machine, put into a fork: full disks and lack of memory, at a place that is chosen.

They are put where the operating system would report them, so that no privilege is needed and the
same case is the same trouble. Disks that are really full are mounted where that is possible.
"""

from __future__ import annotations

import builtins
import ctypes
import errno
import io
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from tests.support.chaos import Child, Ended, Place, run
from tests.support.processes import Forked

OURS = tuple(
    str(Path(__file__).parent.parent.parent / name)
    for name in ("dpbench", "generators", "baselines", "evaluators")
)
NEW_MOUNTS, PRIVATE_RECURSIVE = 0x00020000, 0x00044000


def fill_up(folder: Path, room: int) -> None:
    """Have files below a folder take ``room`` bytes more, and no others."""
    left = [room]
    ordinary = io.open
    below = str(folder)

    class Full(io.FileIO):
        def write(self, content: Any) -> int:
            view = memoryview(content).cast("B")
            some = view[: left[0]]
            if len(view) and not len(some):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left[0] -= len(some)
            return super().write(some)

    def opened(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **named: Any) -> Any:
        writes = any(letter in mode for letter in "wax+")
        if not writes or isinstance(file, int) or not str(Path(file).absolute()).startswith(below):
            return ordinary(file, mode, buffering, *rest, **named)
        raw = Full(file, mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        buffer = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffer
        names = dict(zip(("encoding", "errors", "newline"), rest, strict=False)) | named
        return io.TextIOWrapper(buffer, **names)

    io.open = builtins.open = opened  # in a fork: there is nothing to put back


class Calls:
    """Counts the calls that dpbench's own code makes, and raises an error at one of them."""

    def __init__(self, number: int = 0, error: Callable[[], Exception] = MemoryError) -> None:
        self.made = 0
        self._number, self._error = number, error

    def __call__(self) -> None:
        sys.setprofile(self._seen)

    def _seen(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call" and frame.f_code.co_filename.startswith(OURS):
            self.made += 1
            if self.made == self._number:
                sys.setprofile(None)
                raise self._error()


def no_space() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def can_mount(place: Place) -> bool:
    """Whether small disks can be mounted here."""
    folder = place.root / "probe"
    folder.mkdir()
    child = Forked(lambda: 0 if _mounted(folder, 4096) else 1)
    return child.wait() == 0


def _mounted(folder: Path, size: int) -> bool:
    """Mount a small disk that only this process and its children see, or make it larger."""
    libc = ctypes.CDLL(None, use_errno=True)
    again = os.path.ismount(folder)
    if not again:
        if libc.unshare(NEW_MOUNTS) or libc.mount(b"none", b"/", None, PRIVATE_RECURSIVE, None):
            return False
    flags = 32 if again else 0  # MS_REMOUNT
    options = f"size={size}".encode()
    return not libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, options)


def on_a_small_disk(
    place: Place, folder: Path, size: int, arguments: tuple[object, ...]
) -> tuple[Ended, Ended]:
    """Run a command where a folder is on a small disk, and once more after the disk has grown.

    Args:
        place: What it leaves is copied back from the disk.
        folder: Below the place; what it holds is put on the disk.
        size: Bytes of the disk.
        arguments: Of the command.

    Returns:
        How the two runs ended.
    """
    results: list[Path] = [place.root / "first", place.root / "second"]

    def action() -> int:
        held, kept = place.root / "held", place.root / "kept"
        shutil.move(folder, held)
        folder.mkdir()
        if not _mounted(folder, size + 2 * sum(f.stat().st_size for f in held.rglob("*"))):
            return 1
        shutil.copytree(held, folder, dirs_exist_ok=True)
        for file, room in zip(results, (None, 1 << 28), strict=True):
            if room:
                _mounted(folder, room)
            file.write_text(repr(tuple(vars(run(place, *arguments)).values())))
        shutil.copytree(folder, kept)
        return 0

    assert Child(action).wait() == 0
    folder.rmdir()
    shutil.move(place.root / "kept", folder)
    first, second = (Ended(*eval(file.read_text())) for file in results)
    return first, second
