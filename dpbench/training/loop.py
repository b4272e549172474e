"""Resumable training loops: checkpoints, and signals that are handled between steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from dpbench.core.errors import RunFailed, described
from dpbench.core.files import write_bytes
from dpbench.core.progress import Progress
from dpbench.core.seals import sealed, unsealed
from dpbench.core.signals import deferred
from dpbench.core.state import from_bytes, to_bytes
from dpbench.parallel.ranks import ALONE, Ranks
from dpbench.training.evaluations import GradientEvaluations

SECONDS_BETWEEN_CHECKPOINTS = 30.0
SECRET_MODE = 0o600
# its steps are keyed by the run's key, which is not in it
REPEATED = (
    "remove it to have the same command repeat this stage with the same noise, or start anew with "
    "--overwrite, which is a second release if the run is private"
)


class Stateful(Protocol):
    """Anything whose state can be saved and restored: modules, optimizers, averages."""

    def state_dict(self) -> Any:
        """The state, in a form that ``torch.save`` accepts."""

    def load_state_dict(self, state: Any) -> Any:
        """Restore a saved state."""


class Stage:
    """A loop over steps that resumes where it stopped.

    Args:
        label: Text beside the progress bar.
        file: Checkpoint file, of mode 0600 because training state is not a release.
        progress: Receives progress updates.
        ranks: Processes that take each step together. They start from the state of the first rank,
            which also saves, and stop after the same step when one of them is interrupted.
        evaluations: Counts the gradient evaluations of the loop; None for a count of its own.
        owner: What tells the state of this run from that of others, which is refused.
    """

    def __init__(
        self,
        label: str,
        file: Path,
        progress: Progress,
        ranks: Ranks = ALONE,
        evaluations: GradientEvaluations | None = None,
        owner: str = "",
    ) -> None:
        """Store the arguments."""
        self._owner = owner
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
        if 0 < done < total:
            self._progress.note(f"resuming: {self._label} from step {done + 1} of {total}")
        with (
            deferred() as interrupted,
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
            content = to_bytes(_content(0, state))
        content = self.ranks.broadcast(content)
        if not content:
            return 0
        try:
            saved = from_bytes(content)
            for name, part in state.items():
                part.load_state_dict(saved["state"][name])
            return int(saved["done"])
        except (ValueError, TypeError, LookupError, RuntimeError) as error:
            raise RunFailed(
                f"{self._file} holds the state of other training than this ({described(error)}): "
                f"{REPEATED}"
            ) from error

    def _save(self, done: int, state: Mapping[str, Stateful]) -> None:
        if self.ranks.first:
            self._write(_content(done, state))

    def _read(self) -> bytes:
        """The saved state; empty if there is none.

        Raises:
            RunFailed: The file is not what this run saved.
        """
        if not self._file.exists():
            return b""
        try:
            return unsealed(self._file.read_bytes(), self._owner)
        except ValueError as error:
            raise RunFailed(f"{self._file} is damaged, or of another run: {REPEATED}") from error

    def _write(self, content: dict[str, Any]) -> None:
        write_bytes(self._file, sealed(to_bytes(content), self._owner), SECRET_MODE)


def _content(done: int, state: Mapping[str, Stateful]) -> dict[str, Any]:
    return {"done": done, "state": {name: part.state_dict() for name, part in state.items()}}
