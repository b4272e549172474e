"""Reading regular files only: a pipe never ends, and a device may hold anything."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from dpbench.core.errors import UserError


def open_regular(file: Path) -> BinaryIO:
    """Open a regular file, or a link to one, for reading bytes.

    Raises:
        UserError: It cannot be read, or is a folder, pipe, socket or device.
    """
    try:
        # a pipe without a writer would block here
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{file} cannot be read ({reason})") from None
    handle = os.fdopen(descriptor, "rb") if _regular(descriptor) else None
    if handle is None:
        os.close(descriptor)
        raise UserError(f"{file} is no regular file; expected one, or a link to one: remove it")
    return handle


def read_regular(file: Path, most: int) -> bytes:
    """Read a regular file of a known largest size.

    Args:
        file: The file.
        most: Largest number of bytes.

    Raises:
        UserError: As for ``open_regular``, or it is larger.
    """
    try:
        with open_regular(file) as handle:
            content = handle.read(most + 1)
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror})") from None
    if len(content) > most:
        raise UserError(f"{file} is larger than {most:,} bytes: replace it with an intact copy")
    return content


def _regular(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)
