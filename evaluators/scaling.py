"""Scaling: accuracy of a classifier against the number of its training images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from dpbench.api.evaluator import EvaluationContext, Need
from dpbench.api.profiles import ScalingSettings
from dpbench.core.images import Images
from dpbench.core.metrics import Measurement, MetricSpec
from dpbench.data.subsets import nested_subsets

from .classifiers.prediction import MEMBERS, ensemble_prediction, logits, percent
from .classifiers.recipe import BATCH, Recipe, small_cnn_recipe
from .classifiers.reference import STREAMS, Reference
from .classifiers.training import train

SYNTHETIC, REAL = "scaling_cas_n*", "scaling_cas_real_n*"
ENSEMBLE = "scaling_cas_ensemble_n*"


def recipe(settings: ScalingSettings) -> Recipe:
    """Return the recipe of the CNN, the same at every size."""
    return small_cnn_recipe(settings.steps, label_smoothing=0.05)


@dataclass(frozen=True)
class Scaling:
    """Trains one small CNN on more and more images and tests it on the real test split.

    Ghalebikesabi et al. 2023, section 5.6: the accuracy of a WRN-40-4 on CIFAR-10 rose from 72.9%
    to 86.0% as the synthetic images went from 50k to 1M. Here it is the CNN of ``cas``,
    alone and, where the profile has an ensemble, with others that differ in the order of
    minibatches.

    The subsets are nested and stratified by class; steps, initial weights and minibatch size are
    the same at every size, so that only the images differ. A second curve is for real images of the
    train split; it is the same for all runs on one machine.

    A size larger than the number of images is a row with that reason.
    """

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "accuracy on real test images against the number of synthetic ones"
    metrics: ClassVar[tuple[MetricSpec, ...]] = (
        MetricSpec(SYNTHETIC, "%", True, "test accuracy of a CNN trained on n synthetic images"),
        MetricSpec(ENSEMBLE, "%", True, "test accuracy of five such CNNs together; profile paper"),
        MetricSpec(
            REAL, "%", True, "test accuracy of the same CNN trained on n real images", "reference"
        ),
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SAMPLES, Need.REAL_TRAIN, Need.REAL_TEST})

    def evaluate(self, case: EvaluationContext) -> list[Measurement]:
        """Train on every size of synthetic and of real images."""
        settings = case.profile.evaluation.scaling
        real, test = case.open_real(Need.REAL_TRAIN), case.open_real(Need.REAL_TEST)
        trainings = _Trainings(case, recipe(settings), settings.ensemble, test)
        on_synthetic = [SYNTHETIC, ENSEMBLE] if settings.ensemble else [SYNTHETIC]
        curves = (
            (on_synthetic, case.synthetic, case.streams, trainings.on_synthetic),
            ([REAL], real, STREAMS, trainings.on_real),
        )
        rows = []
        networks = len(settings.sizes) * (MEMBERS + 1 if settings.ensemble else 2)
        total = networks * trainings.recipe.steps * BATCH
        with case.progress.task("train on more and more images", total, "images") as task:
            for metrics, images, streams, measure in curves:
                rng = streams.public("evaluation", "scaling", metrics[0])
                subsets = nested_subsets(images, settings.sizes, rng)
                for size in settings.sizes:
                    accuracies = measure(subsets[size], task.advance) if size in subsets else {}
                    rows += [
                        trainings.row(metric, size, accuracies.get(metric), len(images))
                        for metric in metrics
                    ]
        return rows


@dataclass(frozen=True)
class _Trainings:
    """Trainings of the CNN on different images.

    Attributes:
        case: What is evaluated.
        recipe: Recipe of the CNN.
        ensemble: Whether an ensemble is trained too.
        test: Real test images.
    """

    case: EvaluationContext
    recipe: Recipe
    ensemble: bool
    test: Images

    @property
    def seed(self) -> int:
        """Seed of training on synthetic images."""
        return self.case.streams.seed("evaluation", "scaling")

    @property
    def real_seed(self) -> int:
        """Seed of training on real images, the same for all runs."""
        return STREAMS.seed("evaluation", "scaling", "real")

    def on_synthetic(self, images: Images, advance: Callable[[float], None]) -> dict[str, float]:
        """Train on synthetic images and return accuracies in % by metric."""
        case = self.case
        orders = [self.seed]
        if self.ensemble:
            orders += [
                case.streams.seed("evaluation", "scaling", "order", member)
                for member in range(1, MEMBERS)
            ]
        members = []
        for order in orders:
            network = train(
                self.recipe,
                images,
                case.classes,
                self.seed,
                case.device,
                advance=advance,
                order=order,
            )
            members.append(logits(network, self.test.pixels, case.device))
        predicted = {SYNTHETIC: members[0].argmax(1)}
        if self.ensemble:
            predicted[ENSEMBLE] = ensemble_prediction(members)
        return {metric: percent(each == self.test.labels) for metric, each in predicted.items()}

    def on_real(self, images: Images, advance: Callable[[float], None]) -> dict[str, float]:
        """Train on real images, unless cached, and return the accuracy in % by metric."""
        case = self.case
        reference = Reference(images, self.test, case.classes, case.device, case.cache)
        return {REAL: reference.accuracy(self.recipe, self.real_seed, advance)}

    def row(self, metric: str, size: int, value: float | None, available: int) -> Measurement:
        """Return the row of a metric at one size, with ``available`` images to draw from."""
        synthetic = metric != REAL
        return Measurement(
            metric.replace("*", str(size)),
            value,
            unit="%",
            higher_is_better=True,
            n=min(size, available) if synthetic else 0,
            split=Need.REAL_TEST.value,
            extractor=f"{MEMBERS}x{self.recipe.id}" if metric == ENSEMBLE else self.recipe.id,
            reason="" if value is not None else f"{available} images are there, not {size}",
            n_real=len(self.test),
            seed=self.seed if synthetic else self.real_seed,
        )


EVALUATOR = Scaling
