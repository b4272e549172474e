"""Canary runs: the real mechanisms, on examples with known gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from dpbench.core.errors import RunFailed
from dpbench.core.images import Images, ImageSpec
from dpbench.core.progress import Silent, Task
from dpbench.core.streams import Streams
from dpbench.privacy.audit.transcript import (
    CANARIES,
    Array,
    Audited,
    Mechanism,
    finite,
    watch_steps,
)
from dpbench.privacy.clipping import Predict, as_rows, of_examples
from dpbench.privacy.dpsgd import Learner
from dpbench.privacy.events import DPSGDEvent, GaussianEvent, HistogramEvent
from dpbench.privacy.ledger import PrivacyLedger
from dpbench.privacy.mechanisms import PrivateImages
from dpbench.training.averaging import ExponentialAverage
from dpbench.training.loop import Stage

CANARY_NORM = 10.0
# Draws of noise on directions that belong to no canary: enough to see an error of 3% in its scale.
SPARE_DRAWS = 30_000
# A canary's two copies pull in opposite directions, so that clipping each copy by itself, rather
# than their mean, cancels them.
COPY_WEIGHTS = (3.0, -1.0)


class Canaries(nn.Module):
    """Two embeddings with one weight per row; the output is the sum of a row's two weights."""

    def __init__(self, rows: int) -> None:
        """Start with all weights at zero."""
        super().__init__()
        # explicit weights, because embeddings draw theirs from the global generator
        self.first = nn.Embedding(rows, 1, _weight=torch.zeros(rows, 1))
        self.second = nn.Embedding(rows, 1, _weight=torch.zeros(rows, 1))

    def forward(self, rows: Tensor) -> Tensor:
        """Map row numbers, ``(N,)`` int64, to outputs, ``(N,)``."""
        both: Tensor = self.first(rows) + self.second(rows)
        return both.squeeze(1)


@dataclass(frozen=True)
class CanaryObjective:
    """A loss whose gradient has norm ``size``, in the direction of the image's label.

    Attributes:
        size: Norm of the gradient.
        multiplicity: Number of copies K of each image.
    """

    size: float
    multiplicity: int = len(COPY_WEIGHTS)

    def draw(self, pixels: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, ...]:
        """Return the row and the weight of each copy, both ``(B, K)``."""
        weights = torch.tensor(COPY_WEIGHTS, device=labels.device)
        return labels[:, None].expand(-1, self.multiplicity), weights.expand(len(labels), -1)

    def loss(self, predict: Predict, *copies: Tensor) -> Tensor:
        """Mean loss of each canary over its copies: ``(B,)``."""
        rows, weights = copies
        outputs = of_examples(predict(as_rows(rows)), len(rows))
        return self.size / math.sqrt(2) * (outputs * weights).mean(1)


def rows_of(event: Audited) -> int:
    """Number of directions: one for each canary, and spare ones that show noise alone."""
    return CANARIES + max(CANARIES, SPARE_DRAWS // event.steps)


def _along_rows(first: Tensor, second: Tensor) -> Tensor:
    """Project a vector over both embeddings onto the direction of each row."""
    return ((first + second) / math.sqrt(2)).flatten().cpu()


def canary_run(
    mechanism: Mechanism,
    events: tuple[Audited, ...],
    owned: Tensor,
    streams: Streams,
    folder: Path,
    task: Task,
) -> list[Array]:
    """Spend all events on the canaries ``owned``; return the releases of each event, over C."""
    images = Images(torch.zeros(len(owned), 1, 1, 1, dtype=torch.uint8), owned)
    ledger = PrivacyLedger(mechanism.budget)
    folder.mkdir()
    transcripts = []
    for number, event in enumerate(events):
        info = replace(mechanism.info, spec=ImageSpec(1, 1, 1), classes=rows_of(event))
        private = PrivateImages(images, info, ledger, streams, mechanism.executions)
        if isinstance(event, DPSGDEvent):
            stage = Stage("canaries", folder / f"{number}.stage", Silent())
            sums = _canary_training(private, event, stage, mechanism.device, task)
        elif isinstance(event, HistogramEvent):
            sums = [private.label_histogram(event)]  # each canary has a class of its own
            task.advance(1)
        else:
            sums = [_canary_sum(private, event)]
            task.advance(1)
        if len(sums) != event.steps:
            raise RunFailed(
                f"{event.purpose}: {len(sums)} releases were made but {event.steps} are claimed"
            )
        released = finite(event.purpose, torch.stack(sums))
        transcripts.append((released / event.sensitivity).numpy())
    ledger.certificate(reproducible=True)  # raises if releases made and accounted for differ
    return transcripts


def _canary_sum(private: PrivateImages, event: GaussianEvent) -> Tensor:
    rows = rows_of(event)

    def features(part: Images) -> Tensor:
        vectors = torch.zeros(len(part), 2, rows)
        vectors[torch.arange(len(part)), :, part.labels] = CANARY_NORM / math.sqrt(2)
        return event.clipping_norm * vectors.flatten(1)

    return _along_rows(*torch.split(private.gaussian_sum(features, event), rows))


def _canary_training(
    private: PrivateImages, event: DPSGDEvent, stage: Stage, device: torch.device, task: Task
) -> list[Tensor]:
    model = Canaries(rows_of(event)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    learner = Learner(model, optimizer, ExponentialAverage(model, 0.0))
    sums: list[Tensor] = []

    def keep(gradients: dict[str, Tensor]) -> None:
        sums.append(_along_rows(*gradients.values()))
        task.advance(1)

    watch_steps(learner, event.sample_rate * private.info.nominal_size, keep)
    private.dp_sgd(learner, CanaryObjective(CANARY_NORM * event.clipping_norm), event, stage)
    return sums
