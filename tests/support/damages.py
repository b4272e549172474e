"""Ways in which a file may be other than it was written."""

from __future__ import annotations

from collections.abc import Callable

Bytes = Callable[[bytes], bytes]

DAMAGES: dict[str, Bytes] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "one byte short": lambda content: content[:-1],
    "one byte more": lambda content: content + b" ",
    "a bit of the content": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "a bit of the checksum": lambda content: bytes([content[0] ^ 1]) + content[1:],
    "garbage": lambda content: b"garbage" * 100,
    "from before there were checksums": lambda content: content[65:],
}
