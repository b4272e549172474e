"""Standard error that loses what cannot be printed, and nothing else."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TextIO


class Heedless:
    """Standard error, whichever stream that is now; what cannot be printed there is dropped.

    Notes and progress are for whoever reads them. No measurement is lost because a disk is full, a
    reader has left or a stream is closed.
    """

    @property
    def _stream(self) -> TextIO | None:  # rich puts itself in its place while bars are shown
        stream: TextIO | None = getattr(sys.stderr, "rich_proxied_file", sys.stderr)
        return stream

    def write(self, text: str) -> int:
        """Print text, if that can be done."""
        if (stream := self._stream) is not None:
            with suppress(OSError, ValueError):  # ValueError: it is closed
                stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Print what is left, if that can be done."""
        if (stream := self._stream) is not None:
            with suppress(OSError, ValueError):
                stream.flush()

    def isatty(self) -> bool:
        """Whether somebody watches."""
        if (stream := self._stream) is not None:
            with suppress(ValueError):
                return stream.isatty()
        return False

    @property
    def encoding(self) -> str:
        """Its encoding."""
        return getattr(self._stream, "encoding", None) or "utf-8"
