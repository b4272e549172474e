"""Checksums that files begin with: whether they are what was written, and whose they are.

A seal is the SHA-256 of the owner's name and of all that follows the seal, as 64 hex digits and a
line break. It notices accidents and files that were moved, not forgeries.
"""

from __future__ import annotations

import hashlib
import io
from typing import BinaryIO

SEAL_BYTES = 65
_READ_AT_ONCE = 1 << 20


def seal_of(rest: BinaryIO, owner: str) -> bytes:
    """The seal of content that is read from the current position to the end."""
    digest = hashlib.sha256(f"{owner}\n".encode())
    while content := rest.read(_READ_AT_ONCE):
        digest.update(content)
    return f"{digest.hexdigest()}\n".encode()


def sealed(content: bytes, owner: str) -> bytes:
    """Content behind its seal."""
    return seal_of(io.BytesIO(content), owner) + content


def unsealed(content: bytes, owner: str) -> bytes:
    """What ``sealed`` was given.

    Raises:
        ValueError: The content is damaged, or of another owner.
    """
    inner = content[SEAL_BYTES:]
    if sealed(inner, owner) != content:
        raise ValueError("its checksum is not that of its content")
    return inner
