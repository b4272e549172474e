"""Resumable training loops: checkpoints, and signals that are handled between steps."""

from __future__ import annotations

import io
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch

from dpbench.core.files import torch_bytes, write_torch
from dpbench.core.progress import Progress
from dpbench.parallel.ranks import ALONE, Ranks
from dpbench.training.evaluations import GradientEvaluations

SECONDS_BETWEEN_CHECKPOINTS = 30.0
SECRET_MODE = 0o600


class Stateful(Protocol):
    """Anything whose state can be saved and restored: modules, optimizers, averages."""

    def state_dict(self) -> Any:
        """The state, in a form that ``torch.save`` accepts."""

    def load_state_dict(self, state: Any) -> Any:
        """Restore a saved state."""


@contextmanager
def deferred_interrupts() -> Iterator[Callable[[], bool]]:
    """Defer the first SIGINT or SIGTERM, so that no training step is torn in the middle.

    Yields a function that tells whether a signal has come, for the loop to call between steps. A
    second signal raises KeyboardInterrupt at once. Outside the main thread signals cannot be
    deferred, and the function always returns False.
    """
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    def interrupted() -> bool:
        return bool(received)

    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, remember)
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Stage:
    """A loop over steps that resumes where it stopped.

    Args:
        label: Text beside the progress bar.
        file: Checkpoint file, of mode 0600 because training state is not a release.
        progress: Receives progress updates.
        ranks: Processes that take each step together. They start from the state of the first rank,
            which also saves, and stop after the same step when one of them is interrupted.
        evaluations: Counts the gradient evaluations of the loop; None for a count of its own.
    """

    def __init__(
        self,
        label: str,
        file: Path,
        progress: Progress,
        ranks: Ranks = ALONE,
        evaluations: GradientEvaluations | None = None,
    ) -> None:
        """Store the arguments."""
        self._evaluations = evaluations or GradientEvaluations()
        self.ranks = ranks
        self._label = label
        self._file = file
        self._progress = progress

    def steps(
        self,
        total: int,
        state: Mapping[str, Stateful],
        unit: str = "images",
        per_step: float = 1,
        note: Callable[[int], str] = lambda step: "",
        counted: bool = False,
    ) -> Iterator[int]:
        """Yield the remaining steps; save ``state`` at intervals, at the end and on interruption.

        Args:
            total: Number of steps of the whole stage.
            state: Everything that a step changes; restored before the first step is yielded.
            unit: Unit of progress. ``images`` are gradient evaluations and are held against the
                plan; a loop without gradients has another unit.
            per_step: Units of progress that one step makes.
            note: Returns the text to show after a number of steps.
            counted: Whether a mechanism has counted the gradient evaluations already.

        Yields:
            Step numbers from 0, or from where the saved state stopped, to ``total - 1``.

        Raises:
            KeyboardInterrupt: A signal came; the state has been saved.
            RunFailed: The plan states fewer gradient evaluations.
        """
        if unit == "images" and not counted:
            self._evaluations.count_loop(total * per_step, self._label)
        done = self._load(state)
        with (
            deferred_interrupts() as interrupted,
            self._progress.task(self._label, total * per_step, unit, done * per_step) as task,
        ):
            saved_at = time.monotonic()
            for step in range(done, total):
                yield step
                task.advance(per_step, note(step + 1) if self.ranks.first else "")
                if self.ranks.any(interrupted()):
                    self._save(step + 1, state)
                    raise KeyboardInterrupt
                if time.monotonic() - saved_at > SECONDS_BETWEEN_CHECKPOINTS or step + 1 == total:
                    self._save(step + 1, state)
                    saved_at = time.monotonic()
            if self.ranks.any(interrupted()):  # a signal may have come during the last save
                raise KeyboardInterrupt

    def _load(self, state: Mapping[str, Stateful]) -> int:
        content = self._read() if self.ranks.first else b""
        if self.ranks.first and self.ranks.size > 1 and not content:
            # earlier results may differ between ranks in their last bits
            content = torch_bytes(_content(0, state))
        content = self.ranks.broadcast(content)
        if not content:
            return 0
        saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        for name, part in state.items():
            part.load_state_dict(saved["state"][name])
        return int(saved["done"])

    def _save(self, done: int, state: Mapping[str, Stateful]) -> None:
        if self.ranks.first:
            self._write(_content(done, state))

    def _read(self) -> bytes:
        """The saved state; empty if there is none."""
        return self._file.read_bytes() if self._file.exists() else b""

    def _write(self, content: dict[str, Any]) -> None:
        write_torch(self._file, content, SECRET_MODE)


def _content(done: int, state: Mapping[str, Stateful]) -> dict[str, Any]:
    return {"done": done, "state": {name: part.state_dict() for name, part in state.items()}}
