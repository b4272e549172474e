"""The mechanism of a run, as an audit tries it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

from torch import nn

from dpbench.api.method import RunContext
from dpbench.core.errors import contained
from dpbench.core.progress import Silent
from dpbench.core.streams import Streams
from dpbench.privacy.audit import Mechanism
from dpbench.privacy.clipping.selection import Executions
from dpbench.privacy.events import Event
from dpbench.privacy.mechanisms import PrivateImages
from dpbench.runs.public_images import unread
from dpbench.runs.request import PlannedRun
from dpbench.training.loop import Stage
from dpbench.training.pretraining import Pretraining


def audited_mechanism(
    planned: PlannedRun, events: tuple[Event, ...], executions: Executions
) -> Mechanism:
    """What an audit needs to know of a run: what it claims, and its method to try.

    Args:
        planned: From ``plan``.
        events: What the claim rests on: planned, or certified.
        executions: Choose how gradients are computed, or chose it in the run.
    """

    def fit(private: PrivateImages) -> None:
        with tempfile.TemporaryDirectory() as folder:
            context = _PrivatePartsOnly(
                profile=planned.profile,
                device=planned.device,
                streams=Streams(planned.request.seed),
                progress=Silent(),
                folder=Path(folder),
                public=unread(planned.plan.public),
            )
            with closing(private), contained(planned.request.method):
                planned.resolved.method.fit(private, context)

    return Mechanism(
        info=planned.info,
        budget=planned.budget,
        events=events,
        fit=fit,
        device=planned.device,
        executions=executions,
    )


class _PrivatePartsOnly(RunContext):
    """Leaves out every stage that the method runs itself, as on a resume past it."""

    def stage(self, name: str, label: str) -> Stage:
        return _Skipped(label, self.folder / f"{name}.stage", self.progress)

    def pretraining(self, recipe: Mapping[str, object], label: str) -> Pretraining:
        return _SkippedPretraining(recipe, self.streams, label, self.folder, self.progress)


class _Skipped(Stage):
    def steps(self, *_: object, **__: object) -> Iterator[int]:
        return iter(())


class _SkippedPretraining(Pretraining):
    def load(self, model: nn.Module) -> bool:
        return True
