"""Real digits, and the evaluation of samples that imitate them with profile smoke."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from dpbench.api.evaluator import EvaluationContext, Need
from dpbench.api.profiles import SMOKE
from dpbench.core.cache import Cache
from dpbench.core.images import Images
from dpbench.core.progress import Silent
from dpbench.core.streams import Streams
from dpbench.data.load import load

DIGITS = load("digits", None, Silent()).splits
CPU = torch.device("cpu")


def evaluation(
    synthetic: Images, cache: Path = Path("unused"), seed: int = 0, **changes: object
) -> EvaluationContext:
    """Samples against the train and test split."""
    real = {Need.REAL_TRAIN: DIGITS.train, Need.REAL_TEST: DIGITS.test}
    context = EvaluationContext(
        dataset="digits",
        classes=10,
        synthetic=synthetic,
        open_real=real.__getitem__,
        profile=SMOKE,
        device=CPU,
        streams=Streams(seed),
        progress=Silent(),
        cache=Cache(cache),
    )
    return replace(context, **changes)


def relabelled(images: Images, share: float) -> Images:
    """Images of which a share has a random label."""
    rng = torch.Generator().manual_seed(1)
    wrong = torch.rand(len(images), generator=rng) < share
    random = torch.randint(10, (len(images),), generator=rng)
    return Images(images.pixels, torch.where(wrong, random, images.labels))


def weights(network: nn.Module) -> Tensor:
    """All parameters of a network in one vector."""
    return torch.cat([p.detach().flatten() for p in network.parameters()])


class Log(Silent):
    """Progress that writes down what happens."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.events: list[str] = []
        self.announced = self.done = 0.0

    def advance(self, amount: float, note: str = "") -> None:
        """Count a step."""
        self.done += amount
        self.events.append("step")

    def note(self, text: str) -> None:
        """Keep a message."""
        self.events.append(text)

    @contextmanager
    def task(self, label: str, total: float, unit: str, done: float = 0) -> Iterator[Log]:
        """Sum up what tasks announce."""
        self.announced += total
        yield self


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.mkdir, (self.folder,)
