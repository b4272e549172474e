"""Model selection: does the order of classifiers on synthetic images hold on real ones?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from dpbench.api.evaluator import EvaluationContext, Need
from dpbench.core.images import Images
from dpbench.core.metrics import Measurement, MetricKind, MetricSpec
from dpbench.core.progress import Task
from dpbench.core.streams import Streams
from dpbench.data.stratified import random_stratified_order

from .classifiers.agreement import RankCorrelation, bootstrap_interval, rank_correlation, select
from .classifiers.configurations import Configuration, grid
from .classifiers.prediction import accuracy
from .classifiers.recipe import BATCH
from .classifiers.reference import STREAMS, Reference
from .classifiers.training import train
from .distances.frechet import Float64

HELD_OUT = 5  # one in five synthetic images is held out for testing
FEWEST_CONFIGURATIONS = 12
FEWEST_OF_A_FAMILY = 4
PREFIX = "model_selection_"
# kinds of accuracies, by the images of training and testing
SYNTHETIC, TRANSFER, REAL, RESEEDED = "synthetic", "transfer", "real", "reseeded"
ON_SYNTHETIC = {SYNTHETIC, TRANSFER}
ACCURACIES = {
    SYNTHETIC: "trained on synthetic images, tested on held-out synthetic ones",
    TRANSFER: "trained on synthetic images, tested on real ones",
    REAL: "trained and tested on real images",
    RESEEDED: "trained and tested on real images, with another seed",
}
CEILING = "ceiling"
# the accuracy that selects a configuration, and the one that judges it
SETTINGS = {
    "a": (SYNTHETIC, TRANSFER),
    "b": (SYNTHETIC, REAL),
    CEILING: (RESEEDED, REAL),
}
# of a correlation or what selecting loses, of an end of an interval, and of a detail
KINDS: tuple[MetricKind, MetricKind, MetricKind] = ("score", "bound", "diagnostic")
KINDS_OF_CEILING: tuple[MetricKind, MetricKind, MetricKind] = ("reference",) * 3


def _specs() -> Iterator[MetricSpec]:
    for setting, (selecting, judging) in SETTINGS.items():
        name, pair = f"{PREFIX}{setting}", f"{selecting} against {judging} accuracy"
        # the ceiling is of real images alone, and so the same for all methods
        score, bound, detail = KINDS_OF_CEILING if setting == CEILING else KINDS
        yield MetricSpec(f"{name}_spearman", "", True, f"Spearman's rho, {pair}", score)
        for end in ("low", "high"):
            which = f"the same, {'lower' if end == 'low' else 'upper'} end of 95% bootstrap"
            yield MetricSpec(f"{name}_spearman_{end}", "", True, which, bound)
        yield MetricSpec(f"{name}_kendall", "", True, f"Kendall's tau-b, {pair}", score)
        lost = f"{judging} accuracy lost by selecting"
        yield MetricSpec(f"{name}_regret", "%", False, lost, score)
        rank = f"{judging} rank of the selected configuration"
        yield MetricSpec(f"{name}_rank", "", False, rank, detail)
        for statistic, what in (("spearman", "Spearman's rho"), ("kendall", "Kendall's tau-b")):
            within = f"{name}_{statistic}_within_*"
            yield MetricSpec(within, "", True, f"{what} within a family", detail)
    for accuracy_of, description in ACCURACIES.items():
        kind: MetricKind = "diagnostic" if accuracy_of in ON_SYNTHETIC else "reference"
        yield MetricSpec(f"{PREFIX}{accuracy_of}_*", "%", True, f"accuracy, {description}", kind)


@dataclass(frozen=True)
class Parts:
    """Images to train on and to test on.

    Attributes:
        training: Synthetic images to train on.
        held_out: Synthetic images to test on.
        reference: As many real images as ``training``, if there are as many, and the test split.
    """

    training: Images
    held_out: Images
    reference: Reference


@dataclass(frozen=True)
class ModelSelection:
    """Trains a grid of classifiers on synthetic and on real images and compares their orders.

    Ghalebikesabi et al. 2023, section 6 and figure 4, have two settings. In (a), classifiers are
    trained on synthetic images, and their accuracy on held-out synthetic images is compared with
    that on the real test split: somebody tunes on synthetic images and uses the classifiers trained
    on them. In (b), training and testing on synthetic images is compared with training and testing
    on real ones: somebody selects a configuration, and the owner of the data trains it again. Real
    training sets are as large as synthetic ones, if there are as many images.

    The selected configuration is the best on synthetic images; regret is its distance from the best
    on real images, in points of accuracy. The ceiling is setting (b) with real images in place of
    synthetic ones: the same images with another seed. It is the same for all runs on one machine.

    The interval covers the choice of configurations, as if drawn from a population, but no
    uncertainty of training. There is no rank correlation of fewer than 12 configurations, nor
    within a family of fewer than 4.
    """

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "does the order of classifiers on synthetic images hold on real ones?"
    metrics: ClassVar[tuple[MetricSpec, ...]] = tuple(_specs())
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SAMPLES, Need.REAL_TRAIN, Need.REAL_TEST})

    def evaluate(self, case: EvaluationContext) -> list[Measurement]:
        """Train every configuration on synthetic images and, unless cached, on real ones."""
        if (n := len(case.synthetic)) < HELD_OUT:
            reason = f"needs at least {HELD_OUT} images, to hold one in {HELD_OUT} out; got {n}"
            return [
                Measurement(m.name, None, m.unit, m.higher_is_better, n, reason=reason)
                for m in self.metrics
            ]
        configurations = grid(case.profile.evaluation.model_selection)
        parts = _parts(case)
        total = 3 * BATCH * sum(each.recipe.steps for each in configurations)
        with case.progress.task("train configurations", total, "images") as task:
            accuracies = [_accuracies(case, each, parts, task) for each in configurations]
        families = [each.family for each in configurations]
        seed = case.streams.seed("evaluation", "model-selection")
        specs = {spec.name: spec for spec in self.metrics}

        def row(
            metric: str, of: str, value: float | str, kinds: tuple[str, ...], by: str
        ) -> Measurement:
            synthetic, real = bool({*kinds} & ON_SYNTHETIC), {*kinds} != {SYNTHETIC}
            return Measurement(
                metric.replace("*", of),
                None if isinstance(value, str) else value,
                unit=specs[metric].unit,
                higher_is_better=specs[metric].higher_is_better,
                n=len(case.synthetic) if synthetic else 0,
                split=Need.REAL_TEST.value if real else "",
                extractor=by,
                reason=value if isinstance(value, str) else "",
                n_real=len(parts.reference.test) if real else 0,
                seed=seed,
            )

        rows = []
        for setting, (selecting, judging) in SETTINGS.items():
            x, y = (np.array([each[name] for each in accuracies]) for name in (selecting, judging))
            draws = np.random.default_rng(case.streams.seed("evaluation", "bootstrap", setting))
            by = f"{len(configurations)} configurations"
            for (metric, family), value in compared(x, y, families, draws).items():
                name = f"{PREFIX}{setting}_{metric}"
                rows.append(row(name, family, value, (selecting, judging), by))
        for kind in ACCURACIES:
            trained_on = parts.training if kind in ON_SYNTHETIC else parts.reference.train
            for configuration, reached in zip(configurations, accuracies, strict=True):
                name, by = configuration.name, f"{configuration.recipe.id} on {len(trained_on)}"
                rows.append(row(f"{PREFIX}{kind}_*", name, reached[kind], (kind,), by))
        return rows


def compared(
    selecting: Float64, judging: Float64, families: Sequence[str], draws: np.random.Generator
) -> dict[tuple[str, str], float | str]:
    """Compute how far two lists of accuracies agree on configurations.

    Args:
        selecting: ``(K,)``, float64, in %.
        judging: As ``selecting``.
        families: Family of each configuration.
        draws: Random generator of the bootstrap.

    Returns:
        Value, or reason for having none, by suffix of the metric's name and family (or ``""``).
    """
    found: dict[tuple[str, str], float | str] = {}
    overall = _correlation(selecting, judging, FEWEST_CONFIGURATIONS)
    if isinstance(overall, str):
        ends = ("spearman", "spearman_low", "spearman_high", "kendall")
        found |= {(end, ""): overall for end in ends}
    else:
        low, high = bootstrap_interval(selecting, judging, draws)
        found["spearman", ""], found["kendall", ""] = overall.spearman, overall.kendall
        found["spearman_low", ""], found["spearman_high", ""] = low, high
    taken = select(selecting, judging)
    found["regret", ""], found["rank", ""] = taken.regret, taken.rank
    for family in dict.fromkeys(families):
        members = np.array([each == family for each in families])
        within = _correlation(selecting[members], judging[members], FEWEST_OF_A_FAMILY)
        for name in ("spearman", "kendall"):
            value = within if isinstance(within, str) else getattr(within, name)
            found[f"{name}_within_*", family] = value
    return found


def _correlation(x: Float64, y: Float64, fewest: int) -> RankCorrelation | str:
    if len(x) < fewest:
        return f"{len(x)} configurations; a rank correlation needs {fewest}"
    return rank_correlation(x, y)


def _parts(case: EvaluationContext) -> Parts:
    def order(labels: Tensor, streams: Streams) -> Tensor:
        return random_stratified_order(
            labels, streams.public("evaluation", "model-selection", "parts")
        )

    chosen = order(case.synthetic.labels, case.streams)
    held_out, training = chosen.tensor_split([len(chosen) // HELD_OUT])
    real = case.open_real(Need.REAL_TRAIN)
    as_many = real[order(real.labels, STREAMS)[: len(training)]]
    test = case.open_real(Need.REAL_TEST)
    reference = Reference(as_many, test, case.classes, case.device, case.cache)
    return Parts(case.synthetic[training], case.synthetic[held_out], reference)


def _accuracies(
    case: EvaluationContext, configuration: Configuration, parts: Parts, task: Task
) -> dict[str, float]:
    """Return a configuration's accuracies in %, by kind."""

    def seed(streams: Streams, trained_on: str) -> int:
        return streams.seed("evaluation", "model-selection", trained_on, configuration.name)

    recipe, reference = configuration.recipe, parts.reference
    on_synthetic = seed(case.streams, SYNTHETIC)
    network = train(recipe, parts.training, case.classes, on_synthetic, case.device, task.advance)
    return {
        SYNTHETIC: accuracy(network, parts.held_out, case.device),
        TRANSFER: accuracy(network, reference.test, case.device),
        REAL: reference.accuracy(recipe, seed(STREAMS, REAL), task.advance),
        RESEEDED: reference.accuracy(recipe, seed(STREAMS, RESEEDED), task.advance),
    }


EVALUATOR = ModelSelection
