"""CAS, classification accuracy score: train on synthetic images, test on real ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from dpbench.api.evaluator import EvaluationContext, Need
from dpbench.core.images import Images, ImageSpec
from dpbench.core.metrics import Measurement, MetricSpec
from dpbench.core.progress import Task
from dpbench.data.stratified import random_stratified_order
from dpbench.stats.proportions import wilson

from .classifiers.dpimagebench import DPIMAGEBENCH, dpimagebench_recipes
from .classifiers.networks import (
    DPDM_CNN_SMALLEST_SIDE,
    dpdm_cnn,
    logistic_regression,
    mlp,
    small_cnn,
)
from .classifiers.prediction import ensemble, logits
from .classifiers.recipe import BATCH, Recipe
from .classifiers.training import train
from .classifiers.wide_resnet import wide_resnet_recipe

DPDM_EPOCHS = 50
HELD_OUT = 10  # one synthetic image in so many selects the epoch
MEMBERS = 5
# in laptop four more networks of 600 steps would multiply the processor time of CAS by 4.6, and
# five of 150 steps do worse together than one of 600: 85.6% on real Fashion-MNIST against 88.6%
ENSEMBLED = ("claims", "paper")
DPIMAGEBENCH_MEAN = "cas_dpimagebench_mean"
CNN, LOW, HIGH = "cas_cnn", "cas_cnn_low", "cas_cnn_high"
ENSEMBLE, CLASS = "cas_cnn_ensemble", "cas_cnn_class*"
# these alone are in the mean, in every profile
AVERAGED = ("cas_logreg", "cas_mlp", CNN)
SELECTED = tuple(f"{name}_selected" for name in AVERAGED)


def recipes(profile: str, images: int, dataset: str, spec: ImageSpec) -> dict[str, Recipe]:
    """The classifiers of a profile.

    The learning rates of the small recipes were chosen on images held out of Fashion-MNIST's
    train split, with 10000 others for training.

    Args:
        profile: Name of the profile.
        images: Number of synthetic images; the length of DPDM's training follows it.
        dataset: Name of the data set; some of ``paper``'s follow it.
        spec: Shape of its images.

    Returns:
        The recipe of each metric, by the metric's name.
    """
    if profile == "paper":
        steps = -(-DPDM_EPOCHS * images // BATCH)
        dpdm = {
            "cas_logreg": Recipe("logreg/adam-50epochs", logistic_regression, steps, True, 3e-4, 0),
            "cas_mlp": Recipe("mlp100/adam-50epochs", mlp, steps, True, 3e-4, 0),
            CNN: Recipe(
                "cnn32-64-128/adam-50epochs", dpdm_cnn, steps, True, 3e-4, 0, DPDM_CNN_SMALLEST_SIDE
            ),
        }
        trained_on = images - images // HELD_OUT
        fewer_steps = -(-DPDM_EPOCHS * trained_on // BATCH)
        return {
            **dpdm,
            **{
                name: replace(recipe, id=f"{recipe.id}-best-on-synthetic", steps=fewer_steps)
                for name, recipe in zip(SELECTED, dpdm.values(), strict=True)
            },
            "cas_wrn": wide_resnet_recipe(dataset, spec.channels),
            **dpimagebench_recipes(dataset, images),
        }
    # fewer in claims, which has a quarter of the images and trains five CNNs
    steps = {"smoke": 60, "claims": 100}.get(profile, 600)
    return {
        "cas_logreg": Recipe(f"logreg/sgd{steps}", logistic_regression, steps, False, 0.03, 0.05),
        "cas_mlp": Recipe(f"mlp100/sgd{steps}", mlp, steps, False, 0.1, 0.05),
        CNN: Recipe(f"cnn16-32-64/sgd{steps}", small_cnn, steps, False, 0.1, 0.05),
    }


def is_collapsed(predicted: Tensor, labels: Tensor) -> bool:
    """Whether a classifier predicts at most half as many classes as there are.

    One that was trained on samples without variety within or between classes often ends there, and
    its accuracy alone does not tell it from a merely poor one.

    Args:
        predicted: ``(N,)``, int64: what it predicts for real images.
        labels: ``(N,)``, int64: their labels.
    """
    return 2 * len(set(predicted.tolist())) <= len(set(labels.tolist()))


@dataclass(frozen=True)
class Cas:
    """Trains classifiers on the synthetic images and tests them on the real test split.

    The recipes are fixed, with a fixed number of steps, and the last weights are taken; where an
    epoch is selected, in the metrics of ``SELECTED``, it is by synthetic images alone. So the test
    split is opened once, when all training is done. (Ravuri and Vinyals 2019 named the score.)

    Profile ``paper`` has the three classifiers of DPDM (Dockhorn et al. 2022, appendix, and
    ``train_downstream_classifiers.py`` of its repository): logistic regression, an MLP 784-100-10
    and a CNN, Adam at 3e-4, batch 128, 50 epochs. They are there twice, never trained by us at
    full size. ``AVERAGED`` are trained on all images and take the last epoch, which departs from
    DPDM. ``SELECTED`` are trained on nine tenths and take, as DPDM does, the epoch that is best on
    the held-out tenth of the synthetic images, of several the earliest; they are in no mean.

    Three things differ there from DPDM's code: it is given the two parts as two folders, here the
    tenth is drawn at random, with the classes in their proportions; it goes through the images in
    the same order in every epoch and ends each with a smaller minibatch, here every epoch has an
    order of its own and a minibatch may span two; and it opens the test split whenever the
    accuracy on the tenth rises and reports the last look, here the epoch is selected first.

    Beside them stand the WRN-40-4 of Ghalebikesabi et al. 2023, see ``wide_resnet_recipe``, and the
    three of DPImageBench with a mean of their own, see ``dpimagebench_recipes``; ``cas_mean`` is
    that of DPDM's three, or those in their place, in all profiles.

    The ensemble, in the profiles of ``ENSEMBLED``, is five CNNs whose probabilities are averaged,
    the first of which is that of ``cas_cnn``. As in section 5.6 of Ghalebikesabi et al. 2023 they
    differ in the order of the minibatches alone: initial weights and dropout have the same seed.

    The interval of ``cas_cnn`` is over test images, with the network as it is; other seeds of
    generator, samples or network are not in it. The predicted class of every test image is kept,
    in the order of the test split and with its labels: from that, leaderboards compute intervals
    over seeds and test images, of every classifier and not of means.

    A classifier has collapsed if it predicts at most half as many classes of the test images as
    there are. Collapsed ones are counted and named, and stay in the mean.
    """

    summary: ClassVar[str] = "accuracy on real test images of classifiers trained on synthetic ones"
    metrics: ClassVar[tuple[MetricSpec, ...]] = (
        MetricSpec("cas_logreg", "%", True, "test accuracy of logistic regression"),
        MetricSpec("cas_mlp", "%", True, "test accuracy of an MLP with one hidden layer"),
        MetricSpec(CNN, "%", True, "test accuracy of a convolutional network"),
        *(
            MetricSpec(name, "%", True, f"{of}, epoch best on held-out synthetic; profile paper")
            for name, of in zip(SELECTED, AVERAGED, strict=True)
        ),
        MetricSpec("cas_wrn", "%", True, "test accuracy of a WRN-40-4; profile paper only"),
        *(
            MetricSpec(name, "%", True, "test accuracy of a DPImageBench classifier; profile paper")
            for name in DPIMAGEBENCH
        ),
        MetricSpec(DPIMAGEBENCH_MEAN, "%", True, "mean test accuracy of those three"),
        MetricSpec("cas_mean", "%", True, "mean test accuracy of the first three classifiers"),
        MetricSpec("cas_collapsed", "", False, "classifiers that predict at most half the classes"),
        MetricSpec(LOW, "%", True, "cas_cnn, lower end of 95% Wilson interval"),
        MetricSpec(HIGH, "%", True, "cas_cnn, upper end of 95% Wilson interval"),
        MetricSpec(ENSEMBLE, "%", True, "test accuracy of five such networks together"),
        MetricSpec(CLASS, "%", True, "cas_cnn on the test images of one class"),
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SAMPLES, Need.REAL_TEST})

    def evaluate(self, case: EvaluationContext) -> list[Measurement]:
        """Train all classifiers, then open the test split and measure."""
        spec = case.synthetic.spec
        chosen = recipes(case.profile.name, len(case.synthetic), case.dataset, spec)
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
            predicted[ENSEMBLE] = ensemble(outputs[CNN])
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
    """Train what fits the images: one network each, and the others of an ensemble."""
    fitting = {
        name: recipe for name, recipe in chosen.items() if not _misfit(name, recipe, case.synthetic)
    }
    orders = {name: [seeds[name]] for name in fitting}
    if CNN in fitting and case.profile.name in ENSEMBLED:
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
            *(chosen[name], images, case.classes, seeds[name], case.device),
            *(task.advance, order, selecting),
        )

    with case.progress.task("train classifiers", total, "images") as task:
        return {name: [trained(name, order, task) for order in orders[name]] for name in fitting}


def _misfit(name: str, recipe: Recipe, images: Images) -> str:
    """Why a classifier cannot be trained on the images; ``""`` if it can."""
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
    """All rows, from which test images each classifier that fits got right: ``(N,)``, bool."""
    specs = {spec.name: spec for spec in Cas.metrics}
    unfit = {
        name: _misfit(name, recipe, case.synthetic)
        for name, recipe in chosen.items()
        if name not in correct
    }
    scores = unfit | {name: _percent(right) for name, right in correct.items()}
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
        value = sum(_percent(correct[name]) for name in names) / len(names) if whole else None
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
    unaffordable = f"{MEMBERS} networks take too long for profile {case.profile.name}"
    low, high = wilson(int(correct[CNN].sum()), len(test))
    of_class = {label: correct[CNN][test.labels == label] for label in range(case.classes)}
    return found + [
        of_cnn(LOW, 100 * low),
        of_cnn(HIGH, 100 * high),
        row(
            ENSEMBLE, scores.get(ENSEMBLE, unaffordable), f"{MEMBERS}x{chosen[CNN].id}", seeds[CNN]
        ),
        *(
            of_cnn(
                CLASS.replace("*", str(label)),
                _percent(right) if len(right) else "no test image of this class",
                len(right),
            )
            for label, right in of_class.items()
        ),
    ]


def _percent(correct: Tensor) -> float:
    return 100 * int(correct.sum()) / len(correct)


EVALUATOR = Cas
