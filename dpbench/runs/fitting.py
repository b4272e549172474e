"""Fits a method: what it gets from the harness, and its access to the private images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from dpbench.api.method import Predictor, RunContext, Sampler
from dpbench.api.sources import PublicSource
from dpbench.core.progress import Progress
from dpbench.core.streams import Streams
from dpbench.data.load import Dataset
from dpbench.privacy.clipping.selection import Executions
from dpbench.privacy.ledger import PrivacyLedger
from dpbench.privacy.mechanisms import PrivateImages
from dpbench.runs.request import PlannedRun
from dpbench.training.evaluations import GradientEvaluations


def fit_method(
    planned: PlannedRun,
    dataset: Dataset,
    key: bytes,
    ledger: PrivacyLedger,
    executions: Executions,
    context: RunContext,
) -> Sampler | Predictor:
    """Fit the method of a planned run to its private images.

    Args:
        planned: From ``plan``.
        dataset: The data set with the private images.
        key: The secret key of the noise.
        ledger: Where the method's events are spent.
        executions: Choose how gradients are computed.
        context: From ``run_context``.
    """
    streams = Streams(planned.request.seed, key)
    private = PrivateImages(
        dataset.splits.train, planned.info, ledger, streams, executions, context.evaluations
    )
    with closing(private):
        return planned.resolved.method.fit(private, context)


def run_context(
    planned: PlannedRun,
    public: PublicSource | None,
    progress: Progress,
    folder: Path,
    owner: str = "",
    pretrained: Callable[[dict[str, Any]], None] = lambda what: None,
) -> RunContext:
    """What the method of a planned run gets from the harness.

    Args:
        planned: From ``plan``.
        public: The public images, or None.
        progress: Receives progress updates.
        folder: Where training state may be kept.
        owner: What tells the training state of this run from that of others.
        pretrained: Called with a description of the public weights that are used.
    """
    return RunContext(
        profile=planned.profile,
        device=planned.device,
        streams=Streams(planned.request.seed),  # what a method draws by itself needs no secret
        progress=progress,
        folder=folder,
        owner=owner,
        ranks=planned.ranks,
        public=public,
        pretrained=pretrained,
        evaluations=GradientEvaluations(
            planned.plan.evaluations(private=True), planned.plan.evaluations(private=False)
        ),
    )
