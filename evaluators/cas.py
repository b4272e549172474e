"""CAS, classification accuracy score: train on synthetic images, test on real ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dpbench.protocols import EvaluationContext, Need
from dpbench.types import Measurement, MetricSpec

from ._classifiers import (
    BATCH,
    DPDM_CNN_SMALLEST_SIDE,
    Recipe,
    accuracy,
    dpdm_cnn,
    logistic_regression,
    mlp,
    small_cnn,
    train,
)

DPDM_EPOCHS = 50


def recipes(profile: str, images: int) -> dict[str, Recipe]:
    """The classifiers of a profile.

    The learning rates of the small recipes were chosen on images held out of Fashion-MNIST's
    train split, with 10000 others for training.

    Args:
        profile: Name of the profile.
        images: Number of images to train on; the length of ``paper``'s training follows it.

    Returns:
        The recipe of each metric, by the metric's name.
    """
    if profile == "paper":
        steps = -(-DPDM_EPOCHS * images // BATCH)
        return {
            "cas_logreg": Recipe("logreg/adam-50epochs", logistic_regression, steps, True, 3e-4, 0),
            "cas_mlp": Recipe("mlp100/adam-50epochs", mlp, steps, True, 3e-4, 0),
            "cas_cnn": Recipe(
                "cnn32-64-128/adam-50epochs", dpdm_cnn, steps, True, 3e-4, 0, DPDM_CNN_SMALLEST_SIDE
            ),
        }
    steps = 60 if profile == "smoke" else 600
    return {
        "cas_logreg": Recipe(f"logreg/sgd{steps}", logistic_regression, steps, False, 0.03, 0.05),
        "cas_mlp": Recipe(f"mlp100/sgd{steps}", mlp, steps, False, 0.1, 0.05),
        "cas_cnn": Recipe(f"cnn16-32-64/sgd{steps}", small_cnn, steps, False, 0.1, 0.05),
    }


@dataclass(frozen=True)
class Cas:
    """Trains classifiers on the synthetic images and tests them on the real test split.

    The recipes are fixed, with a fixed number of steps, and the last weights are taken: there is
    nothing to select, so the test split is opened once, when all training is done. (Ravuri and
    Vinyals 2019 named the score.)

    Profile ``paper`` has the three classifiers of DPDM (Dockhorn et al. 2022, appendix, and
    ``train_downstream_classifiers.py`` of its repository): logistic regression, an MLP 784-100-10
    and a CNN, Adam at 3e-4, batch 128, 50 epochs. DPDM takes the epoch that is best on a held-out
    tenth of the synthetic images; here all images are trained on and the last epoch is taken.
    """

    summary: ClassVar[str] = "accuracy on real test images of classifiers trained on synthetic ones"
    metrics: ClassVar[tuple[MetricSpec, ...]] = (
        MetricSpec("cas_logreg", "%", True, "test accuracy of logistic regression"),
        MetricSpec("cas_mlp", "%", True, "test accuracy of an MLP with one hidden layer"),
        MetricSpec("cas_cnn", "%", True, "test accuracy of a convolutional network"),
        MetricSpec("cas_mean", "%", True, "mean test accuracy of the three classifiers"),
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SAMPLES, Need.REAL_TEST})

    def evaluate(self, case: EvaluationContext) -> list[Measurement]:
        """Train all classifiers, then open the test split and measure."""
        chosen = recipes(case.profile.name, len(case.synthetic))
        side = min(case.synthetic.spec.height, case.synthetic.spec.width)
        fitting = {name: recipe for name, recipe in chosen.items() if side >= recipe.smallest_side}
        seeds = {name: case.streams.seed("evaluation", "cas", name) for name in chosen}
        networks = {}
        total = BATCH * sum(recipe.steps for recipe in fitting.values())
        with case.progress.task("train classifiers", total, "images") as task:
            for name, recipe in fitting.items():
                networks[name] = train(
                    recipe, case.synthetic, case.classes, seeds[name], case.device, task.advance
                )
        test = case.open_real(Need.REAL_TEST)
        accuracies = {
            name: accuracy(network, test, case.device) for name, network in networks.items()
        }

        def measurement(
            metric: str, value: float | None, extractor: str, seed: int, reason: str
        ) -> Measurement:
            return Measurement(
                metric,
                value,
                unit="%",
                higher_is_better=True,
                n=len(case.synthetic),
                split=Need.REAL_TEST.value,
                extractor=extractor,
                reason=reason if value is None else "",
                n_real=len(test),
                seed=seed,
            )

        complete = len(accuracies) == len(chosen)
        return [
            measurement(
                name,
                accuracies.get(name),
                recipe.id,
                seeds[name],
                f"{recipe.id} needs images of at least {recipe.smallest_side} pixels a side",
            )
            for name, recipe in chosen.items()
        ] + [
            measurement(
                "cas_mean",
                sum(accuracies.values()) / len(chosen) if complete else None,
                "+".join(recipe.id for recipe in chosen.values()),
                case.streams.seed("evaluation", "cas"),
                "not every classifier fits the images",
            )
        ]


EVALUATOR = Cas
