"""Public pre-training, done once and cached for every run with the same recipe and seed.

It depends on the run's seed, so that runs with other seeds are independent repetitions of the whole
method. Runs of one seed that differ in private training alone, for instance in epsilon, share it.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dpbench.core.canonical import sha256_of
from dpbench.core.files import locked, sha256, write_torch
from dpbench.core.progress import Progress
from dpbench.core.streams import Streams
from dpbench.parallel.ranks import ALONE, Ranks
from dpbench.training.loop import Stage


class Pretraining:
    """One public stage: loads weights from the cache, or trains them in a resumable loop.

    Args:
        recipe: Everything that the weights depend on, as JSON values: the public images, the
            network, the hyper-parameters.
        streams: Public random streams of the run.
        label: Text beside the progress bar.
        folder: Cache of weights, by the hash of their recipe and seed.
        progress: Receives progress updates.
        ranks: Processes of the run, which all get the same weights.
        kept: Called with the id of the recipe, the seed, the SHA-256 of the weights file and
            whether it was in the cache already.

    Attributes:
        id: SHA-256 of the recipe, 64 hex digits.
        streams: Random streams of the stage.
        stage: The resumable loop.
    """

    def __init__(
        self,
        recipe: Mapping[str, object],
        streams: Streams,
        label: str,
        folder: Path,
        progress: Progress,
        ranks: Ranks = ALONE,
        kept: Callable[[dict[str, Any]], None] = lambda what: None,
    ) -> None:
        """Choose the file names; nothing is read yet."""
        self.id = sha256_of(recipe)
        self.streams = streams
        name = f"{self.id[:16]}-seed{streams.public_seed}"
        self._file = folder / f"{name}.pt"
        self._partial = folder / f"{name}.stage"
        self.stage = Stage(label, self._partial, progress, ranks)
        self._progress, self._ranks, self._kept = progress, ranks, kept
        self._lock = contextlib.ExitStack()

    def load(self, model: nn.Module) -> bool:
        """Load cached weights into ``model``; return False if there are none.

        A process that finds none must train them. It holds a lock until it has saved them or ends;
        others wait here meanwhile.
        """
        content = b""
        if self._ranks.first:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._lock.enter_context(locked(self._file.with_suffix(".lock"), self._wait))
            if self._file.exists():
                content = self._file.read_bytes()
                self._lock.close()
                self._progress.note(f"public training was done before: {self._file}")
                self._tell(reused=True)
        content = self._ranks.broadcast(content)
        if not content:
            return False
        model.load_state_dict(
            torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        )
        return True

    def save(self, model: nn.Module) -> None:
        """Cache the weights of ``model`` and remove the checkpoint of the loop."""
        if self._ranks.first:
            write_torch(self._file, model.state_dict())
            self._partial.unlink(missing_ok=True)
            self._lock.close()
            self._progress.note(f"public weights are kept in {self._file}")
            self._tell(reused=False)

    def _tell(self, reused: bool) -> None:
        self._kept(
            {
                "recipe": self.id,
                "seed": self.streams.public_seed,
                "sha256": sha256(self._file),
                "reused": reused,
            }
        )

    def _wait(self) -> None:
        self._progress.note("waiting for another process that runs the same public training")
