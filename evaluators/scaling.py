"""Scaling: accuracy of a classifier against the number of images that it is trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from dpbench.api.evaluator import EvaluationContext, Need
from dpbench.core.images import Images
from dpbench.core.metrics import Measurement, MetricSpec
from dpbench.data.subsets import nested

from .cas import MEMBERS
from .classifiers.networks import small_cnn
from .classifiers.prediction import ensemble, logits
from .classifiers.recipe import BATCH, Recipe
from .classifiers.reference import STREAMS, Reference
from .classifiers.training import train

# not in claims, where CAS has an ensemble: here it is five networks for every number of images
ENSEMBLED = ("paper",)
SYNTHETIC, REAL = "scaling_cas_n*", "scaling_cas_real_n*"
ENSEMBLE = "scaling_cas_ensemble_n*"


@dataclass(frozen=True)
class Series:
    """What is trained on, and on how many images of it.

    Attributes:
        recipe: Of the classifier, at every size: the number of steps is the same.
        sizes: Numbers of images, rising.
    """

    recipe: Recipe
    sizes: tuple[int, ...]


def series(profile: str) -> Series:
    """The curve of a profile."""
    steps, sizes = {
        # the iterations of table 4 for CIFAR-10; of the sizes, 50k and 1M are stated
        "paper": (20_000, (50_000, 100_000, 200_000, 500_000, 1_000_000)),
        # fewer steps would not pass over the largest twice, and its accuracy would be the lowest
        "laptop": (200, (1000, 3000, 10_000)),
        "claims": (100, (250, 2500)),
        "smoke": (20, (50, 200)),
    }[profile]
    return Series(Recipe(f"cnn16-32-64/sgd{steps}", small_cnn, steps, False, 0.1, 0.05), sizes)


@dataclass(frozen=True)
class Scaling:
    """Trains one small CNN on more and more images and tests it on the real test split.

    Ghalebikesabi et al. 2023, section 5.6: the accuracy of a WRN-40-4 on CIFAR-10 rose from 72.9%
    to 86.0% as the synthetic images went from 50k to 1M. Here it is the CNN of ``cas``, single, and
    in profile ``paper`` five of them together.
    The subsets are nested and stratified by class; steps, initial weights and minibatch size are
    the same at every size, so that only the images differ. A curve for real images, of the train
    split, stands beside it; it is the same for all runs on one machine.

    A size that there are not enough images for is a row with that reason.
    """

    summary: ClassVar[str] = "accuracy on real test images against the number of synthetic ones"
    metrics: ClassVar[tuple[MetricSpec, ...]] = (
        MetricSpec(SYNTHETIC, "%", True, "test accuracy of a CNN trained on n synthetic images"),
        MetricSpec(ENSEMBLE, "%", True, "test accuracy of five such CNNs together; profile paper"),
        MetricSpec(REAL, "%", True, "test accuracy of the same CNN trained on n real images"),
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SAMPLES, Need.REAL_TRAIN, Need.REAL_TEST})

    def evaluate(self, case: EvaluationContext) -> list[Measurement]:
        """Train on every size of both sources."""
        chosen = series(case.profile.name)
        real, test = case.open_real(Need.REAL_TRAIN), case.open_real(Need.REAL_TEST)
        seed = case.streams.seed("evaluation", "scaling")
        real_seed = STREAMS.seed("evaluation", "scaling", "real")
        together = case.profile.name in ENSEMBLED
        # of the minibatches of an ensemble's members
        orders = [seed]
        if together:
            orders += [
                case.streams.seed("evaluation", "scaling", "order", member)
                for member in range(1, MEMBERS)
            ]

        def of_synthetic(images: Images, advance: Callable[[float], None]) -> list[float]:
            members = [
                logits(
                    train(
                        *(chosen.recipe, images, case.classes, seed, case.device),
                        *(advance, order),
                    ),
                    test.pixels,
                    case.device,
                )
                for order in orders
            ]
            predicted = [members[0].argmax(1), *([ensemble(members)] if together else [])]
            return [100 * int((each == test.labels).sum()) / len(test) for each in predicted]

        def of_real(images: Images, advance: Callable[[float], None]) -> list[float]:
            reference = Reference(images, test, case.classes, case.device, case.cache)
            return [reference.accuracy(chosen.recipe, real_seed, advance)]

        def row(metric: str, size: int, value: float | None, there: int) -> Measurement:
            synthetic = metric != REAL
            return Measurement(
                metric.replace("*", str(size)),
                value,
                unit="%",
                higher_is_better=True,
                n=min(size, there) if synthetic else 0,
                split=Need.REAL_TEST.value,
                extractor=f"{MEMBERS}x" * (metric == ENSEMBLE) + chosen.recipe.id,
                reason="" if value is not None else f"{there} images are there, not {size}",
                n_real=len(test),
                seed=seed if synthetic else real_seed,
            )

        rows = []
        total = (len(orders) + 1) * len(chosen.sizes) * chosen.recipe.steps * BATCH
        with case.progress.task("train on more and more images", total, "images") as task:
            for metrics, images, streams, measure in (
                ([SYNTHETIC, ENSEMBLE][: 1 + together], case.synthetic, case.streams, of_synthetic),
                ([REAL], real, STREAMS, of_real),
            ):
                rng = streams.public("evaluation", "scaling", metrics[0])
                subsets = nested(images, chosen.sizes, rng)
                for size in chosen.sizes:
                    part = subsets.get(size)
                    values = [None] * len(metrics) if part is None else measure(part, task.advance)
                    rows += [
                        row(metric, size, value, len(images))
                        for metric, value in zip(metrics, values, strict=True)
                    ]
        return rows


EVALUATOR = Scaling
