"""Discriminator realism: are synthetic images classified as private or as public?"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from dpbench.api.evaluator import EvaluationContext, Need
from dpbench.api.profiles import RealismSettings
from dpbench.api.sources import PublicSource
from dpbench.core.images import Images
from dpbench.core.metrics import Measurement, MetricSpec
from dpbench.stats.proportions import wilson_interval

from .classifiers.networks import resnet18
from .classifiers.prediction import predict
from .classifiers.recipe import BATCH, Recipe, small_cnn_recipe
from .classifiers.training import train

PUBLIC, PRIVATE = 0, 1
CLASS_SHARE = "realism_share_class*"


def discriminator(settings: RealismSettings) -> Recipe:
    """Return the recipe of the discriminator."""
    recipe = small_cnn_recipe(settings.steps, label_smoothing=0)
    match settings.network:
        case "small-cnn":
            return recipe
        case "resnet18":
            return replace(recipe, id=f"resnet18-3x3stem/sgd{settings.steps}", network=resnet18)


@dataclass(frozen=True)
class Sides:
    """Equally many private and public images.

    Attributes:
        private: ``(N, C, H, W)``, uint8.
        public: ``(N, C, H, W)``, uint8.
    """

    private: Tensor
    public: Tensor

    def labelled(self) -> Images:
        """Return all images, labelled by side."""
        count = len(self.private)
        labels = torch.tensor([PRIVATE, PUBLIC]).repeat_interleave(count)
        return Images(torch.cat([self.private, self.public]), labels)


@dataclass(frozen=True)
class Realism:
    """Trains a discriminator of private against public images and shows it the synthetic ones.

    Ghalebikesabi et al. 2023, section 5.5: a ResNet18 that tells CIFAR-10 from ImageNet32 with
    98.0% accuracy took 92% of 50000 synthetic images for CIFAR-10. The paper gives no recipe; ours
    has a fixed number of steps and takes the last weights. Private images come from the train split
    for training and from the test split for testing; public images are split into disjoint parts.

    The normalised share, ``(share - FPR) / (TPR - FPR)`` in %, corrects for the discriminator's
    errors on held-out images: it is the share of private images in a mixture of private and public
    ones that would be judged alike. Sampling noise can push it below 0 or above 100. It is missing
    if the Wilson intervals of TPR and FPR overlap. The interval of the share is for this one
    discriminator and independent synthetic images.

    The share shows whether samples left the public distribution towards the private one. It does
    not show that they are good (noise may be on the private side) or diverse. It is a diagnostic of
    the distribution: a high share proves no leak, and a low one proves no privacy.
    """

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "share of samples that a discriminator takes for private, not public"
    metrics: ClassVar[tuple[MetricSpec, ...]] = (
        MetricSpec(
            "realism_accuracy",
            "%",
            True,
            "discriminator on held-out private and public",
            "reference",
        ),
        MetricSpec("realism_share", "%", True, "synthetic images judged private", "diagnostic"),
        MetricSpec(
            "realism_share_low", "%", True, "the same, lower end of 95% Wilson interval", "bound"
        ),
        MetricSpec(
            "realism_share_high", "%", True, "the same, upper end of 95% Wilson interval", "bound"
        ),
        MetricSpec(
            "realism_share_normalised", "%", True, "the same, between FPR and TPR", "diagnostic"
        ),
        MetricSpec(
            CLASS_SHARE, "%", True, "synthetic images of a class judged private", "diagnostic"
        ),
    )
    needs: ClassVar[frozenset[Need]] = frozenset(
        {Need.SAMPLES, Need.REAL_TRAIN, Need.REAL_TEST, Need.PUBLIC}
    )

    def evaluate(self, case: EvaluationContext) -> list[Measurement]:
        """Train, test and judge; without public images every metric is a row with the reason."""
        source = case.public
        if source is None:
            reason = "no public images were used, so there is nothing to discriminate against"
            return self._missing(case, reason)
        settings = case.profile.evaluation.realism
        recipe = discriminator(settings)
        sides = _sides(case, source, settings.images)
        if isinstance(sides, str):
            return self._missing(case, sides)
        training, testing = sides
        seed = case.streams.seed("evaluation", "realism")
        total = BATCH * recipe.steps
        with case.progress.task("train the discriminator", total, "images") as task:
            network = train(recipe, training.labelled(), 2, seed, case.device, task.advance)
        synthetic, private, public = (
            predict(network, pixels, case.device) == PRIVATE
            for pixels in (case.synthetic.pixels, testing.private, testing.public)
        )
        of_class = {
            label: synthetic[case.synthetic.labels == label] for label in range(case.classes)
        }

        def row(metric: str, value: float | str, n: int, split: Need) -> Measurement:
            return Measurement(
                metric,
                None if isinstance(value, str) else value,
                unit="%",
                higher_is_better=True,
                n=n,
                split=split.value,
                extractor=f"{recipe.id} vs {source.name}-{source.identity[:8]}",
                reason=value if isinstance(value, str) else "",
                n_real=len(training.private if split is Need.REAL_TRAIN else testing.private),
                seed=seed,
            )

        n = len(synthetic)
        low, high = wilson_interval(int(synthetic.sum()), n)
        return [
            row("realism_accuracy", 100 * share(torch.cat([private, ~public])), 0, Need.REAL_TEST),
            row("realism_share", 100 * share(synthetic), n, Need.REAL_TRAIN),
            row("realism_share_low", 100 * low, n, Need.REAL_TRAIN),
            row("realism_share_high", 100 * high, n, Need.REAL_TRAIN),
            row(
                "realism_share_normalised",
                normalised(synthetic, private, public),
                n,
                Need.REAL_TEST,
            ),
        ] + [
            row(
                CLASS_SHARE.replace("*", str(label)),
                100 * share(judged) if len(judged) else "no synthetic image of this class",
                len(judged),
                Need.REAL_TRAIN,
            )
            for label, judged in of_class.items()
        ]

    def _missing(self, case: EvaluationContext, reason: str) -> list[Measurement]:
        n = len(case.synthetic)
        return [
            Measurement(m.name, None, m.unit, m.higher_is_better, n, reason=reason)
            for m in self.metrics
        ]


def normalised(synthetic: Tensor, private: Tensor, public: Tensor) -> float | str:
    """Compute the share of synthetic images judged private, between FPR (0%) and TPR (100%).

    Args:
        synthetic: ``(N,)``, bool: whether each synthetic image is judged private.
        private: The same for held-out private images; their share is the TPR.
        public: The same for held-out public images; their share is the FPR.

    Returns:
        ``(share - FPR) / (TPR - FPR)`` in %, or the reason for having none: the 95% Wilson
        intervals of TPR and FPR overlap.
    """
    tpr, fpr = 100 * share(private), 100 * share(public)
    if (
        wilson_interval(int(private.sum()), len(private))[0]
        <= wilson_interval(int(public.sum()), len(public))[1]
    ):
        return (
            f"the discriminator takes {tpr:.1f}% of held-out private images and {fpr:.1f}% of "
            "public ones for private: it cannot tell them apart"
        )
    return 100 * (100 * share(synthetic) - fpr) / (tpr - fpr)


def _sides(case: EvaluationContext, source: PublicSource, limit: int) -> tuple[Sides, Sides] | str:
    """Return images for training and for testing, at most ``limit`` per side in each.

    If there are too few for one in each, return the reason.
    """

    def shuffled(images: Images, name: str) -> Tensor:
        rng = case.streams.public("evaluation", "realism", name)
        return images.pixels[torch.randperm(len(images), generator=rng)]

    train = shuffled(case.open_real(Need.REAL_TRAIN), "train")[:limit]
    test = shuffled(case.open_real(Need.REAL_TEST), "test")[:limit]
    wanted = len(train) + len(test)
    images = source.images(wanted, case.progress)
    public = shuffled(images, "public")
    # if there are fewer public images than wanted, both parts shrink in proportion
    first, second = (len(side) * len(public) // wanted for side in (train, test))
    if not first or not second:
        fewest = math.ceil(wanted / min(len(train), len(test)))
        return f"needs at least {fewest} public images, to train and to test on; got {len(public)}"
    return (
        Sides(train[:first], public[:first]),
        Sides(test[:second], public[first : first + second]),
    )


def share(judged: Tensor) -> float:
    """Return the share of True in ``(N,)`` booleans, in [0, 1]."""
    return judged.double().mean().item()


EVALUATOR = Realism
