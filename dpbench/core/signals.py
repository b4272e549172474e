"""Signals that ask the process to end: all interrupt it as Ctrl-C does, so that nothing is lost.

This module is imported before all others, so it imports little.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# there is no SIGHUP on Windows
ENDING = tuple(
    signal.Signals(getattr(signal, name))
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)
)
INTERRUPTED = tuple(128 + number for number in ENDING)  # the exit codes
Handler = Callable[[int, FrameType | None], Any]

_received: list[int] = []


def received(number: int) -> None:
    """Remember that a signal came, for the exit code."""
    _received.append(number)


def interruption_code() -> int:
    """The exit code of a command that was interrupted: 128 and the number of the signal."""
    return 128 + (_received[-1] if _received else signal.SIGINT)


@contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Handle the signals that ask the process to end, inside the block.

    One that is ignored, as ``nohup`` has SIGHUP, stays so. Outside the main thread nothing changes.

    Args:
        handler: Called with the number of the signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    before = {number: each for number, each in before.items() if each is not signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, each in before.items():
            signal.signal(number, each)


@contextmanager
def interrupting() -> Iterator[None]:
    """Have each signal that asks the process to end raise KeyboardInterrupt, inside the block."""
    if signal.getsignal(signal.SIGTERM) is not _interrupt:  # not within another such block
        _received.clear()
    with handled(_interrupt):
        yield


def _interrupt(number: int, frame: FrameType | None) -> None:
    received(number)
    raise KeyboardInterrupt


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Defer the first signal, so that nothing is torn in the middle.

    Yields a function that tells whether a signal has come, for a loop to call between steps. A
    second signal raises KeyboardInterrupt at once. Outside the main thread signals cannot be
    deferred, and the function always returns False.
    """
    came: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        received(number)
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt

    with handled(remember):
        yield lambda: bool(came)
