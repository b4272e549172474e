"""CAS, classification accuracy score: train on synthetic images, test on real ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from dpbench.api.evaluator import EvaluationContext, Need
from dpbench.api.profiles import CasSettings
from dpbench.core.images import Images, ImageSpec
from dpbench.core.metrics import Measurement, MetricSpec
from dpbench.core.progress import Task
from dpbench.data.stratified import random_stratified_order
from dpbench.stats.proportions import wilson_interval

from .classifiers.dpdm import dpdm_recipes
from .classifiers.dpimagebench import DPIMAGEBENCH, dpimagebench_recipes
from .classifiers.networks import logistic_regression, mlp
from .classifiers.prediction import MEMBERS, ensemble_prediction, logits, percent
from .classifiers.recipe import Recipe, small_cnn_recipe
from .classifiers.training import train
from .classifiers.wide_resnet import wide_resnet_recipe

HELD_OUT = 10  # one in ten synthetic images is held out to select the epoch
DPIMAGEBENCH_MEAN = "cas_dpimagebench_mean"
CNN, LOW, HIGH = "cas_cnn", "cas_cnn_low", "cas_cnn_high"
ENSEMBLE, CLASS = "cas_cnn_ensemble", "cas_cnn_class*"
# the metrics that `cas_mean` averages, whatever else a profile trains
AVERAGED = ("cas_logreg", "cas_mlp", CNN)
SELECTED = tuple(f"{name}_selected" for name in AVERAGED)


def recipes(settings: CasSettings, images: int, dataset: str, spec: ImageSpec) -> dict[str, Recipe]:
    """Return the recipe of each classifier, by the name of its metric.

    The learning rates of the small recipes were chosen on images held out of Fashion-MNIST's
    train split, after training on 10000 others.

    Args:
        settings: Steps of the small classifiers, or the papers' classifiers.
        images: Number of synthetic images, from which the papers' epochs give steps.
        dataset: Name of the data set, on which some of the papers' recipes depend.
        spec: Shape of its images.
    """
    steps = settings.steps
    if steps is None:
        without_held_out = dpdm_recipes(images - images // HELD_OUT)
        return {
            **dict(zip(AVERAGED, dpdm_recipes(images), strict=True)),
            **{
                name: replace(recipe, id=f"{recipe.id}-best-on-synthetic")
                for name, recipe in zip(SELECTED, without_held_out, strict=True)
            },
            "cas_wrn": wide_resnet_recipe(dataset, spec.channels),
            **dpimagebench_recipes(dataset, images),
        }
    sgd = small_cnn_recipe(steps, label_smoothing=0.05)
    return {
        "cas_logreg": replace(
            sgd, id=f"logreg/sgd{steps}", network=logistic_regression, learning_rate=0.03
        ),
        "cas_mlp": replace(sgd, id=f"mlp100/sgd{steps}", network=mlp),
        CNN: sgd,
    }


def is_collapsed(predicted: Tensor, labels: Tensor) -> bool:
    """Return whether a classifier predicts at most half of the classes.

    Classifiers trained on samples without variety often collapse in this way, and accuracy alone
    does not tell them from merely poor ones.

    Args:
        predicted: ``(N,)``, int64: predictions for real images.
        labels: ``(N,)``, int64: labels of these images.
    """
    return 2 * len(set(predicted.tolist())) <= len(set(labels.tolist()))


@dataclass(frozen=True)
class Cas:
    """Trains classifiers on the synthetic images and tests them on the real test split.

    Ravuri and Vinyals 2019 introduced the score. Recipes and numbers of steps are fixed, and the
    last weights are taken; the metrics of ``SELECTED`` select an epoch, by synthetic images alone.
    So the test split is opened once, after all training.

    With the papers' classifiers (profile ``paper``) there are the three of DPDM (Dockhorn et al.
    2022, appendix, and ``train_downstream_classifiers.py`` of its repository): logistic regression,
    an MLP 784-100-10 and a CNN, with Adam at 3e-4, batch 128, 50 epochs. We have never trained
    them at full size. Each is trained twice. ``AVERAGED`` are trained on all images and take the
    last epoch, which departs from DPDM. ``SELECTED`` are trained on nine tenths and take, as DPDM
    does, the epoch that is best on the held-out tenth of the synthetic images, the earliest of
    several; no mean includes them.

    Three things in ``SELECTED`` differ from DPDM's code. It is given the two parts as two folders;
    here the tenth is a stratified random draw. It goes through the images in the same order in
    every epoch and ends each with a smaller minibatch; here every epoch has its own order and a
    minibatch may span two epochs. It opens the test split whenever the accuracy on the tenth rises
    and reports the last result; here the epoch is selected first.

    There are also the WRN-40-4 of Ghalebikesabi et al. 2023 (``wide_resnet_recipe``) and the three
    classifiers of DPImageBench, which have their own mean (``dpimagebench_recipes``). ``cas_mean``
    averages DPDM's three, or the three small classifiers that replace them in other profiles.

    The ensemble averages the probabilities of five CNNs, the first of which is that of ``cas_cnn``.
    As in section 5.6 of Ghalebikesabi et al. 2023 they differ only in the order of minibatches:
    initial weights and dropout have the same seed.

    The interval of ``cas_cnn`` covers the choice of test images for the given network, but no other
    seeds of generator, samples or network. The predicted class of every test image is kept, in the
    order of the test split and with its label; leaderboards compute from it intervals over seeds
    and test images for every classifier, though not for means.

    Collapsed classifiers (``is_collapsed``) are counted and named, and stay in the mean.
    """

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "accuracy on real test images of classifiers trained on synthetic ones"
    metrics: ClassVar[tuple[MetricSpec, ...]] = (
        MetricSpec("cas_logreg", "%", True, "test accuracy of logistic regression"),
        MetricSpec("cas_mlp", "%", True, "test accuracy of an MLP with one hidden layer"),
        MetricSpec(CNN, "%", True, "test accuracy of a convolutional network"),
        *(
            MetricSpec(name, "%", True, f"{of}, best epoch on held-out synthetic; profile paper")
            for name, of in zip(SELECTED, AVERAGED, strict=True)
        ),
        MetricSpec("cas_wrn", "%", True, "test accuracy of a WRN-40-4; profile paper only"),
        *(
            MetricSpec(name, "%", True, "test accuracy of a DPImageBench classifier; profile paper")
            for name in DPIMAGEBENCH
        ),
        MetricSpec(DPIMAGEBENCH_MEAN, "%", True, "mean test accuracy of those three"),
        MetricSpec("cas_mean", "%", True, "mean test accuracy of the first three classifiers"),
        MetricSpec(
            "cas_collapsed",
            "",
            False,
            "classifiers that predict at most half the classes",
            "diagnostic",
        ),
        MetricSpec(LOW, "%", True, "cas_cnn, lower end of 95% Wilson interval", "bound"),
        MetricSpec(HIGH, "%", True, "cas_cnn, upper end of 95% Wilson interval", "bound"),
        MetricSpec(ENSEMBLE, "%", True, "test accuracy of five such networks together"),
        MetricSpec(CLASS, "%", True, "cas_cnn on the test images of one class", "diagnostic"),
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SAMPLES, Need.REAL_TEST})

    def evaluate(self, case: EvaluationContext) -> list[Measurement]:
        """Train all classifiers, then open the test split and measure."""
        spec = case.synthetic.spec
        settings = case.profile.evaluation.cas
        chosen = recipes(settings, len(case.synthetic), case.dataset, spec)
        seeds = {name: case.streams.seed("evaluation", "cas", name) for name in chosen}
        networks = _train(case, chosen, seeds)
        test = case.open_real(Need.REAL_TEST)
        outputs = {
            name: [logits(network, test.pixels, case.device) for network in members]
            for name, members in networks.items()
        }
        predicted = {name: members[0].argmax(1) for name, members in outputs.items()}
        collapsed = [name for name in predicted if is_collapsed(predicted[name], test.labels)]
        if collapsed:
            case.progress.note(f"collapsed to half the classes or fewer: {', '.join(collapsed)}")
        if len(outputs.get(CNN, ())) == MEMBERS:
            predicted[ENSEMBLE] = ensemble_prediction(outputs[CNN])
        case.keep(
            {
                name: labels.numpy().astype(np.int16)
                for name, labels in {"labels": test.labels, **predicted}.items()
            }
        )
        correct = {name: labels == test.labels for name, labels in predicted.items()}
        return _rows(case, chosen, seeds, test, correct, len(collapsed))


def _train(
    case: EvaluationContext, chosen: dict[str, Recipe], seeds: dict[str, int]
) -> dict[str, list[nn.Module]]:
    """Train the classifiers that fit the images, and the other members of the ensemble."""
    fitting = {
        name: recipe for name, recipe in chosen.items() if not _misfit(name, recipe, case.synthetic)
    }
    orders = {name: [seeds[name]] for name in fitting}
    if CNN in fitting and case.profile.evaluation.cas.ensemble:
        orders[CNN] += [
            case.streams.seed("evaluation", "cas", CNN, "order", member)
            for member in range(1, MEMBERS)
        ]
    total = sum(len(orders[name]) * recipe.steps * recipe.batch for name, recipe in fitting.items())
    rng = case.streams.public("evaluation", "cas", "held out")
    held_out, training = random_stratified_order(case.synthetic.labels, rng).tensor_split(
        [len(case.synthetic) // HELD_OUT]
    )
    split = (case.synthetic[training], case.synthetic[held_out])

    def trained(name: str, order: int, task: Task) -> nn.Module:
        images, selecting = split if name in SELECTED else (case.synthetic, None)
        return train(
            chosen[name],
            images,
            case.classes,
            seeds[name],
            case.device,
            advance=task.advance,
            order=order,
            held_out=selecting,
        )

    with case.progress.task("train classifiers", total, "images") as task:
        return {name: [trained(name, order, task) for order in orders[name]] for name in fitting}


def _misfit(name: str, recipe: Recipe, images: Images) -> str:
    """Return why a classifier cannot be trained on the images; ``""`` if it can."""
    if min(images.spec.height, images.spec.width) < recipe.smallest_side:
        return f"{recipe.id} needs images of at least {recipe.smallest_side} pixels a side"
    if name in SELECTED and len(images) < HELD_OUT:
        return f"{recipe.id} needs at least {HELD_OUT} images, to hold one out"
    return ""


def _rows(
    case: EvaluationContext,
    chosen: dict[str, Recipe],
    seeds: dict[str, int],
    test: Images,
    correct: dict[str, Tensor],
    collapsed: int,
) -> list[Measurement]:
    """Return all rows; ``correct`` has for each trained classifier ``(N,)`` bool."""
    specs = {spec.name: spec for spec in Cas.metrics}
    unfit = {
        name: _misfit(name, recipe, case.synthetic)
        for name, recipe in chosen.items()
        if name not in correct
    }
    scores = unfit | {name: percent(right) for name, right in correct.items()}
    of_all = case.streams.seed("evaluation", "cas")

    def row(
        metric: str, value: float | str, extractor: str, seed: int, n_real: int = len(test)
    ) -> Measurement:
        spec = specs.get(metric, specs[CLASS])
        return Measurement(
            metric,
            None if isinstance(value, str) else value,
            unit=spec.unit,
            higher_is_better=spec.higher_is_better,
            n=len(case.synthetic),
            split=Need.REAL_TEST.value,
            extractor=extractor,
            reason=value if isinstance(value, str) else "",
            n_real=n_real,
            seed=seed,
        )

    def of_cnn(metric: str, value: float | str, n_real: int = len(test)) -> Measurement:
        return row(metric, value, chosen[CNN].id, seeds[CNN], n_real)

    def joined(names: Iterable[str]) -> str:
        return "+".join(chosen[name].id for name in names)

    def of_mean(metric: str, names: Sequence[str]) -> Measurement:
        whole = all(name in correct for name in names)
        value = sum(percent(correct[name]) for name in names) / len(names) if whole else None
        reason = "not every classifier fits the images"
        return row(metric, reason if value is None else value, joined(names), of_all)

    found = [
        *(row(name, scores[name], recipe.id, seeds[name]) for name, recipe in chosen.items()),
        of_mean("cas_mean", AVERAGED),
        *([of_mean(DPIMAGEBENCH_MEAN, DPIMAGEBENCH)] if DPIMAGEBENCH[0] in chosen else []),
        row("cas_collapsed", collapsed, joined(chosen), of_all),
    ]
    if CNN in unfit:
        return found + [of_cnn(metric, unfit[CNN]) for metric in (LOW, HIGH, ENSEMBLE, CLASS)]
    no_ensemble = f"profile {case.profile.name} trains no ensemble of {MEMBERS} CNNs"
    low, high = wilson_interval(int(correct[CNN].sum()), len(test))
    of_class = {label: correct[CNN][test.labels == label] for label in range(case.classes)}
    return found + [
        of_cnn(LOW, 100 * low),
        of_cnn(HIGH, 100 * high),
        row(
            ENSEMBLE,
            scores.get(ENSEMBLE, no_ensemble),
            f"{MEMBERS}x{chosen[CNN].id}",
            seeds[CNN],
        ),
        *(
            of_cnn(
                CLASS.replace("*", str(label)),
                percent(right) if len(right) else "no test image of this class",
                len(right),
            )
            for label, right in of_class.items()
        ),
    ]


EVALUATOR = Cas
