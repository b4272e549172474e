"""The one loop over evaluators: for the samples of a run, and for samples made elsewhere.

How each evaluator ended is in the record, with the reason if it has not measured all that it could:
see ``Evaluator``. What can change is tried again by the same command; what cannot, such as too few
images or a classifier without samples, is measured for good, as rows with a reason.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from dpbench.api.evaluator import EvaluationContext, Evaluator, Need
from dpbench.api.method import Predictor
from dpbench.api.profiles import Profile
from dpbench.api.sources import PublicSource
from dpbench.core import registry
from dpbench.core.cache import Cache, user_cache
from dpbench.core.errors import RunFailed, Unavailable, UserError, contained, described
from dpbench.core.images import Images, ImageSpec
from dpbench.core.metrics import Measurement, MetricSpec
from dpbench.core.progress import Progress
from dpbench.core.registry import entries, version_of
from dpbench.core.registry import load as load_entry
from dpbench.core.streams import Streams
from dpbench.data.load import Dataset
from dpbench.privacy.audit import Mechanism
from dpbench.records.evaluator_status import EvaluatorStatus


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

    @functools.cached_property
    def _cache(self) -> Cache:
        return user_cache(self.progress.note)

    def context(
        self, name: str, needs: frozenset[Need], unavailable: Callable[[str], None]
    ) -> EvaluationContext:
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
            cache=self._cache,
            mechanism=mechanism() if mechanism is not None else None,
            public=self.public if Need.PUBLIC in needs else None,
            predictor=self.predictor if Need.PREDICTOR in needs else None,
            run_id=self.run_id,
            keep=functools.partial(self.keep, name),
            unavailable=unavailable,
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
    names = list(dict.fromkeys(asked))
    for name in names:
        load_entry("evaluator", name)
    return names


class Evaluated(Protocol):
    """A record of evaluators: of a run, or of samples made elsewhere.

    Attributes:
        done: Names of parts that are over.
        evaluators: How each evaluator ended, by name; empty in records of schema version 1.
        measurements: All that the evaluators measured.
    """

    done: list[str]
    evaluators: dict[str, EvaluatorStatus]
    measurements: list[Measurement]


def check_resources(names: Iterable[str], images: ImageSpec) -> None:
    """Check that what users say they supply is there, before anything is made.

    Args:
        names: Of the evaluators.
        images: Shape of the images.

    Raises:
        UserError: Something that a user names, such as a file of weights, is not there.
    """
    for name in names:
        evaluator = None
        with suppress(UserError):  # a broken plugin disables itself and nothing else
            evaluator = load_entry("evaluator", name)
        missing = getattr(evaluator, "missing", None)
        if missing is not None:
            missing(images)


def left(names: Iterable[str], record: Evaluated, images: ImageSpec) -> list[str]:
    """Names of the evaluators to call: those that have not ended, and those to try again.

    One that cannot be imported is never among them: it leaves no record incomplete.

    Args:
        names: Of the evaluators.
        record: What they have measured so far.
        images: Shape of the images.
    """
    found = []
    for name in names:
        with suppress(UserError):
            if _waits(name, load_entry("evaluator", name), record, images):
                found.append(name)
    return found


def failures(names: Iterable[str], record: Evaluated) -> str:
    """What is wrong with the evaluators that failed, in one line; ``""`` if none did.

    One that cannot be imported is not among them: no run fails of it.
    """
    found = []
    for name in names:
        status = record.evaluators.get(name)
        if status is not None and status.outcome == "failed":
            with suppress(UserError):
                load_entry("evaluator", name)
                found.append(f"{name}: {status.reason}")
    return "; ".join(found)


def evaluate(
    subject: Subject,
    names: Iterable[str],
    record: Evaluated,
    part: Callable[[str], AbstractContextManager[None]],
    debug: bool,
    anew: Collection[str] = (),
) -> None:
    """Call one evaluator after the other, but for those that have measured already.

    What one cannot measure is a row with the reason. One that fails is not done.

    Args:
        subject: What to evaluate.
        names: Of the evaluators.
        record: Where statuses and rows are added: those of an evaluator all at once.
        part: Entered for each evaluator; left without an error when its rows are added.
        debug: Let an evaluator's error end the loop.
        anew: Names of those whose earlier values are replaced, also by none.
    """
    for name in names:
        entry = registry.entries("evaluator")[name]
        try:
            evaluator = load_entry("evaluator", name)
        except UserError as error:  # a broken plugin disables itself and nothing else
            if name not in record.done:
                subject.progress.note(f"skipped: {error}")
                with part(name):
                    version = f"{entry.distribution} {entry.version}"
                    record.evaluators[name] = EvaluatorStatus("failed", version, _line(error))
            continue
        if _waits(name, evaluator, record, subject.synthetic.spec):
            with suppress(_Failed), part(name):
                rows, status = _called(name, evaluator, version_of(entry), subject, debug)
                failed = status.outcome == "failed"
                _replace(record, name, evaluator.metrics, rows, keep=failed or name not in anew)
                record.evaluators[name] = status
                if failed:
                    raise _Failed


class _Failed(Exception):
    """Ends the part of an evaluator that failed, so that it is not done."""


def _waits(name: str, evaluator: type[Evaluator], record: Evaluated, images: ImageSpec) -> bool:
    """Whether an evaluator has not ended, or is to be tried again."""
    if name not in record.done:
        return True
    status = record.evaluators.get(name)
    if status is None or status.outcome == "measured":  # None in records of schema version 1
        return False
    missing = getattr(evaluator, "missing", None)
    if status.outcome == "failed" or missing is None:
        return True
    return bool(missing(images) != status.reason)


def _called(
    name: str, evaluator: type[Evaluator], version: str, subject: Subject, debug: bool
) -> tuple[list[Measurement], EvaluatorStatus]:
    """Call an evaluator; return its rows, with its version and their kinds, and how it ended."""
    measured = EvaluatorStatus("measured", version)
    if Need.PREDICTOR in evaluator.needs and subject.predictor is None:
        return [], measured
    n = len(subject.synthetic) if Need.SAMPLES in evaluator.needs else 0

    def stamped(rows: Iterable[Measurement]) -> list[Measurement]:
        found = []
        for row in rows:
            spec = _declared(row.metric, evaluator.metrics)
            if spec is None:
                raise RunFailed(f"returned {row.metric}, which is not among its metrics")
            found.append(replace(row, version=version, kind=spec.kind))
        return found

    def without_values(reason: str) -> list[Measurement]:
        return stamped(
            Measurement(metric.name, None, metric.unit, metric.higher_is_better, n, reason=reason)
            for metric in evaluator.metrics
        )

    lacking = [why for need, why in subject.lacking.items() if need in evaluator.needs]
    if lacking:  # now and for ever, so that there is nothing to try again
        return without_values(lacking[0]), measured
    missing: dict[str, None] = {}  # in order, each once

    def unavailable(reason: str) -> None:
        missing[reason] = None

    try:
        context = subject.context(name, evaluator.needs, unavailable)
        with contained(f"evaluator {name!r}"):
            rows = stamped(evaluator().evaluate(context))
    except Unavailable as error:
        reason = _line(error)
        return without_values(reason), EvaluatorStatus("unavailable", version, reason)
    except Exception as error:
        if debug:
            raise
        reason = described(error)
        return without_values(reason), EvaluatorStatus("failed", version, reason)
    if missing:
        return rows, EvaluatorStatus("unavailable", version, "; ".join(missing))
    return rows, measured


def _declared(metric: str, metrics: tuple[MetricSpec, ...]) -> MetricSpec | None:
    """The declaration of a metric, by its own name or else by the longest of a family."""
    families = []
    for spec in metrics:
        if spec.name == metric:
            return spec
        if spec.name.endswith("*") and metric.startswith(spec.name.removesuffix("*")):
            families.append(spec)
    return max(families, key=lambda spec: len(spec.name), default=None)


def _replace(
    record: Evaluated,
    name: str,
    metrics: tuple[MetricSpec, ...],
    rows: list[Measurement],
    keep: bool,
) -> None:
    """Put rows of an evaluator in the place of those of its earlier call, if there was one.

    To ``keep`` values is to let them stay where there is no other: the file of weights behind them
    may be here no longer.
    """
    earlier = record.evaluators.get(name)
    own: list[Measurement] = []
    others: list[Measurement] = []
    for row in record.measurements:
        by_it = earlier is not None and row.version == earlier.version
        (own if by_it and _declared(row.metric, metrics) else others).append(row)
    again = {row.metric for row in rows if row.value is not None}
    kept = [row for row in own if keep and row.value is not None and row.metric not in again]
    stay = {row.metric for row in kept}
    new = [row for row in rows if row.metric not in stay]
    record.measurements[:] = others + kept + new


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
