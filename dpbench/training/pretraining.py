"""Public pre-training, done once and cached for every run with the same recipe and seed.

It depends on the run's seed, so that runs with other seeds are independent repetitions of the whole
method. Runs of one seed that differ in private training alone, for instance in epsilon, share it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor, nn

from dpbench.core.cache import Cache
from dpbench.core.canonical import sha256_of
from dpbench.core.files import locked
from dpbench.core.progress import Progress
from dpbench.core.state import from_bytes, to_bytes
from dpbench.core.streams import Streams
from dpbench.parallel.ranks import ALONE, Ranks
from dpbench.training.evaluations import GradientEvaluations
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
        evaluations: Counts the gradient evaluations of the loop; None for a count of its own.

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
        evaluations: GradientEvaluations | None = None,
    ) -> None:
        """Choose the file names; nothing is read yet."""
        self.id = sha256_of(recipe)
        self.streams = streams
        name = f"{self.id[:16]}-seed{streams.public_seed}"
        self._name, self._lock_name = f"{name}.pt", f"{name}.lock"
        self._cache = Cache(folder, progress.note)
        self.stage = _KeptStage(label, self._cache, f"{name}.stage", progress, ranks, evaluations)
        self._progress, self._ranks, self._kept = progress, ranks, kept
        self._lock = contextlib.ExitStack()

    def load(self, model: nn.Module) -> bool:
        """Load cached weights into ``model``; return False if there are none.

        A process that finds none must train them. It holds a lock until it has saved them or ends;
        others wait here meanwhile.
        """
        content = None
        if self._ranks.first:

            def fitting(handle: BinaryIO) -> bytes:
                found = handle.read()
                _check_fit(_weights(found), model)
                return found

            content = self._cache.find(self._name, fitting)
            if content is None:
                with contextlib.suppress(OSError):  # nobody else can write there either
                    self._cache.folder.mkdir(parents=True, exist_ok=True)
                    self._lock.enter_context(
                        locked(self._cache.folder / self._lock_name, self._wait)
                    )
                content = self._cache.find(self._name, fitting)  # made while this one waited
            if content is not None:
                self._lock.close()
                self._progress.note(f"public training was done before: {self._place}")
                self._tell(content, reused=True)
        content = self._ranks.broadcast(content or b"")
        if not content:
            return False
        model.load_state_dict(_weights(content))
        return True

    def save(self, model: nn.Module) -> None:
        """Cache the weights of ``model`` and remove the checkpoint of the loop."""
        if self._ranks.first:
            content = to_bytes(model.state_dict())
            if self._cache.keep(self._name, lambda handle: handle.write(content)):
                self._progress.note(f"public weights are kept in {self._place}")
            self._tell(content, reused=False)
            self.stage.discard()
            self._lock.close()

    @property
    def _place(self) -> Path:
        return self._cache.folder / self._name

    def _tell(self, content: bytes, reused: bool) -> None:
        self._kept(
            {
                "recipe": self.id,
                "seed": self.streams.public_seed,
                "sha256": hashlib.sha256(content).hexdigest(),
                "reused": reused,
            }
        )

    def _wait(self) -> None:
        self._progress.note("waiting for another process that runs the same public training")


class _KeptStage(Stage):
    """A loop whose checkpoint is a result in the cache: lost, it is done again."""

    def __init__(
        self,
        label: str,
        cache: Cache,
        name: str,
        progress: Progress,
        ranks: Ranks,
        evaluations: GradientEvaluations | None,
    ) -> None:
        super().__init__(label, cache.folder / name, progress, ranks, evaluations)
        self._cache = cache

    def _read(self) -> bytes:
        return self._cache.find(self._file.name, lambda handle: handle.read()) or b""

    def _write(self, content: dict[str, Any]) -> None:
        self._cache.keep(self._file.name, lambda handle: handle.write(to_bytes(content)))

    def discard(self) -> None:
        """Remove the checkpoint."""
        with contextlib.suppress(OSError):
            self._file.unlink()


def _weights(content: bytes) -> dict[str, Tensor]:
    found: dict[str, Tensor] = from_bytes(content)
    return found


def _check_fit(weights: dict[str, Tensor], model: nn.Module) -> None:
    """Check that weights are those of a model.

    Raises:
        ValueError: They have other names, shapes or kinds of numbers.
    """
    found, wanted = (
        {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}
        for state in (weights, model.state_dict())
    )
    if found != wanted:
        raise ValueError("it holds the weights of another network")
