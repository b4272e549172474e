"""The one loop over evaluators: for the samples of a run, and for samples made elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from dpbench.api.evaluator import EvaluationContext, Need
from dpbench.api.method import Predictor
from dpbench.api.profiles import Profile
from dpbench.api.sources import PublicSource
from dpbench.core.errors import RunFailed, UserError, described
from dpbench.core.files import cache_folder
from dpbench.core.images import Images
from dpbench.core.metrics import Measurement, MetricSpec
from dpbench.core.progress import Progress
from dpbench.core.registry import entries
from dpbench.core.registry import load as load_entry
from dpbench.core.streams import Streams
from dpbench.data.load import Dataset
from dpbench.privacy.audit import Mechanism


@dataclass(frozen=True)
class Subject:
    """Samples or a predictor to evaluate, with everything that evaluators may declare.

    Attributes:
        dataset: The data set that the samples imitate.
        synthetic: The samples; empty if there is a predictor.
        profile: Profile of the evaluation.
        device: Device to compute on.
        streams: Named random streams.
        progress: Receives progress updates.
        predictor: The classifier, if the method gave no samples.
        public: The public images that the method trained on, if any.
        mechanism: Returns the mechanism that made the samples, for evaluators that declare it.
        run_id: Id of the run, or of the scores if the samples were made elsewhere.
        lacking: Reasons why something is not available; they replace the evaluators' own.
        keep: Called with an evaluator's name and the arrays that it keeps.
    """

    dataset: Dataset
    synthetic: Images
    profile: Profile
    device: torch.device
    streams: Streams
    progress: Progress
    predictor: Predictor | None = None
    public: PublicSource | None = None
    mechanism: Callable[[], Mechanism] | None = None
    run_id: str = ""
    lacking: Mapping[Need, str] = field(default_factory=dict)
    keep: Callable[[str, Mapping[str, NDArray[np.generic]]], None] = lambda name, arrays: None

    def context(self, name: str, needs: frozenset[Need]) -> EvaluationContext:
        """Return the context of an evaluator with these needs."""

        def open_real(need: Need) -> Images:
            if need not in needs:
                raise RunFailed(f"an evaluator opened the {need.value} split without declaring it")
            splits = self.dataset.splits
            images = {
                Need.REAL_TRAIN: splits.train,
                Need.REAL_VALIDATION: splits.validation,
                Need.REAL_TEST: splits.test,
            }[need]
            if images is None:
                raise RunFailed(f"{self.dataset.info.name} has no {need.value} split in this run")
            return images

        mechanism = self.mechanism if Need.MECHANISM in needs else None
        return EvaluationContext(
            dataset=self.dataset.info.name,
            classes=self.dataset.info.classes,
            synthetic=self.synthetic,
            open_real=open_real,
            profile=self.profile,
            device=self.device,
            streams=self.streams,
            progress=self.progress,
            cache=cache_folder(),
            mechanism=mechanism() if mechanism is not None else None,
            public=self.public if Need.PUBLIC in needs else None,
            predictor=self.predictor if Need.PREDICTOR in needs else None,
            run_id=self.run_id,
            keep=functools.partial(self.keep, name),
        )


def named(asked: tuple[str, ...] | None) -> list[str]:
    """Names of the evaluators to run: all that are installed, or those asked for, each once.

    Raises:
        UserError: A name or number is not valid.
    """
    if asked is None:
        return list(entries("evaluator"))
    if not asked:
        raise UserError("--evaluators is empty: `dpbench list evaluators`, or leave it out")
    for name in asked:
        load_entry("evaluator", name)
    return list(dict.fromkeys(asked))


def evaluate(
    subject: Subject,
    names: Iterable[str],
    measurements: list[Measurement],
    part: Callable[[str], AbstractContextManager[None]],
    debug: bool,
) -> None:
    """Measure with one evaluator after the other; what one cannot do is a row with the reason.

    Args:
        subject: What to evaluate.
        names: Of the evaluators.
        measurements: Where rows are added: those of an evaluator all at once.
        part: Entered for each evaluator; left without an error when its rows are added.
        debug: Let an evaluator's error end the loop.
    """
    for name in names:
        try:
            evaluator = load_entry("evaluator", name)
        except UserError as error:  # a broken plugin disables itself and nothing else
            subject.progress.note(f"skipped: {error}")
            continue
        with part(name):
            if Need.PREDICTOR in evaluator.needs and subject.predictor is None:
                continue
            lacking = [why for need, why in subject.lacking.items() if need in evaluator.needs]
            n = len(subject.synthetic) if Need.SAMPLES in evaluator.needs else 0
            if lacking:
                measurements += _missing(evaluator.metrics, n, lacking[0])
                continue
            try:
                measurements += evaluator().evaluate(subject.context(name, evaluator.needs))
            except Exception as error:
                if debug:
                    raise
                measurements += _missing(evaluator.metrics, n, described(error))


def _missing(metrics: tuple[MetricSpec, ...], n: int, reason: str) -> list[Measurement]:
    """Rows that say why none of the metrics has a value."""
    return [
        Measurement(metric.name, None, metric.unit, metric.higher_is_better, n, reason=reason)
        for metric in metrics
    ]
