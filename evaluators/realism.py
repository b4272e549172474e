"""Discriminator realism: are synthetic images taken for private ones or for public ones?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dpbench.api.evaluator import EvaluationContext, Need
from dpbench.api.sources import PublicSource
from dpbench.core.images import Images
from dpbench.core.metrics import Measurement, MetricSpec
from dpbench.stats.proportions import wilson

from .classifiers.networks import resnet18, small_cnn
from .classifiers.prediction import predict
from .classifiers.recipe import BATCH, Recipe
from .classifiers.training import train

PUBLIC, PRIVATE = 0, 1
CLASS_SHARE = "realism_share_class*"


@dataclass(frozen=True)
class Discrimination:
    """How a discriminator is trained and tested.

    Attributes:
        recipe: Of the classifier.
        images: At most so many of each side for training, and again for testing.
    """

    recipe: Recipe
    images: int


def discrimination(profile: str) -> Discrimination:
    """The discriminator of a profile.

    On two CPU cores a step of ResNet18 takes ten seconds, and a programmatic image may take
    several milliseconds to draw; the small CNN tells Fashion-MNIST from dead leaves at 99.9%.
    """
    if profile == "paper":
        recipe = Recipe("resnet18-3x3stem/sgd5000", resnet18, 5000, False, 0.1, 0)
        return Discrimination(recipe, images=50_000)
    steps, images = {"smoke": (60, 500), "claims": (100, 500)}.get(profile, (200, 1000))
    recipe = Recipe(f"cnn16-32-64/sgd{steps}", small_cnn, steps, False, 0.1, 0)
    return Discrimination(recipe, images)


@dataclass(frozen=True)
class Sides:
    """Private and public images, equally many.

    Attributes:
        private: ``(N, C, H, W)``, uint8.
        public: ``(N, C, H, W)``, uint8.
    """

    private: Tensor
    public: Tensor

    def labelled(self) -> Images:
        """All of them, with their side as label."""
        count = len(self.private)
        labels = torch.tensor([PRIVATE, PUBLIC]).repeat_interleave(count)
        return Images(torch.cat([self.private, self.public]), labels)


@dataclass(frozen=True)
class Realism:
    """Trains a discriminator of private against public images and shows it the synthetic ones.

    Ghalebikesabi et al. 2023, section 5.5: a ResNet18 that tells CIFAR-10 from ImageNet32 at 98.0%
    took 92% of 50000 synthetic images for CIFAR-10. The paper gives no recipe; here it is fixed,
    with a fixed number of steps and the last weights. Private images for training come from the
    train split, those for testing from the test split; public ones are split into disjoint parts.

    The normalised share, ``(share - FPR) / (TPR - FPR)`` in %, is what is left when the
    discriminator's errors on held-out images are taken off: the share of private images in a
    mixture of private and public ones that would be judged alike. Sampling can carry it past 0 or
    100. It is missing where the Wilson intervals of TPR and FPR are not apart. The interval of
    the share holds for this one discriminator and for independent synthetic images.

    What it shows is whether samples left the public distribution towards the private one. It does
    not show that they are good (noise may lie on the private side), nor varied, and it is a
    diagnostic of distribution: a high share proves no leak and a low one no privacy.
    """

    summary: ClassVar[str] = "share of samples that a discriminator takes for private, not public"
    metrics: ClassVar[tuple[MetricSpec, ...]] = (
        MetricSpec("realism_accuracy", "%", True, "discriminator on held-out private and public"),
        MetricSpec("realism_share", "%", True, "synthetic images judged private"),
        MetricSpec("realism_share_low", "%", True, "the same, lower end of 95% Wilson interval"),
        MetricSpec("realism_share_high", "%", True, "the same, upper end of 95% Wilson interval"),
        MetricSpec("realism_share_normalised", "%", True, "the same, between FPR and TPR"),
        MetricSpec(CLASS_SHARE, "%", True, "synthetic images of a class judged private"),
    )
    needs: ClassVar[frozenset[Need]] = frozenset(
        {Need.SAMPLES, Need.REAL_TRAIN, Need.REAL_TEST, Need.PUBLIC}
    )

    def evaluate(self, case: EvaluationContext) -> list[Measurement]:
        """Train, test and judge; without public images every metric is a row that says so."""
        source = case.public
        if source is None:
            reason = "this run has no public or programmatic images to tell private ones from"
            return [
                Measurement(
                    m.name, None, m.unit, m.higher_is_better, len(case.synthetic), reason=reason
                )
                for m in self.metrics
            ]
        chosen = discrimination(case.profile.name)
        training, testing = _sides(case, source, chosen.images)
        seed = case.streams.seed("evaluation", "realism")
        total = BATCH * chosen.recipe.steps
        with case.progress.task("train the discriminator", total, "images") as task:
            network = train(chosen.recipe, training.labelled(), 2, seed, case.device, task.advance)
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
                extractor=f"{chosen.recipe.id} vs {source.name}-{source.identity[:8]}",
                reason=value if isinstance(value, str) else "",
                n_real=len(training.private if split is Need.REAL_TRAIN else testing.private),
                seed=seed,
            )

        n = len(synthetic)
        low, high = wilson(int(synthetic.sum()), n)
        return [
            row("realism_accuracy", _percent(torch.cat([private, ~public])), 0, Need.REAL_TEST),
            row("realism_share", _percent(synthetic), n, Need.REAL_TRAIN),
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
                _percent(judged) if len(judged) else "no synthetic image of this class",
                len(judged),
                Need.REAL_TRAIN,
            )
            for label, judged in of_class.items()
        ]


def normalised(synthetic: Tensor, private: Tensor, public: Tensor) -> float | str:
    """The share of synthetic images judged private, between those of held-out images.

    Args:
        synthetic: ``(N,)``, bool: which images are judged private.
        private: As ``synthetic``, of held-out private images; their share is the TPR.
        public: As ``synthetic``, of held-out public images; their share is the FPR.

    Returns:
        ``(share - FPR) / (TPR - FPR)`` in %, or why there is none: the 95% Wilson intervals of
        TPR and FPR are not apart.
    """
    tpr, fpr = _percent(private), _percent(public)
    if wilson(int(private.sum()), len(private))[0] <= wilson(int(public.sum()), len(public))[1]:
        return (
            f"the discriminator takes {tpr:.1f}% of held-out private images and {fpr:.1f}% of "
            "public ones for private: it cannot tell them apart"
        )
    return 100 * (_percent(synthetic) - fpr) / (tpr - fpr)


def _sides(case: EvaluationContext, source: PublicSource, limit: int) -> tuple[Sides, Sides]:
    """Images for training and for testing: ``limit`` of each side at most, for each."""

    def shuffled(images: Images, name: str) -> Tensor:
        rng = case.streams.public("evaluation", "realism", name)
        return images.pixels[torch.randperm(len(images), generator=rng)]

    train = shuffled(case.open_real(Need.REAL_TRAIN), "train")[:limit]
    test = shuffled(case.open_real(Need.REAL_TEST), "test")[:limit]
    wanted = len(train) + len(test)
    images = source.images(wanted, case.progress)
    public = shuffled(images, "public")
    # where there are fewer public images than wanted, both parts shrink alike
    first, second = (len(side) * len(public) // wanted for side in (train, test))
    return (
        Sides(train[:first], public[:first]),
        Sides(test[:second], public[first : first + second]),
    )


def _percent(chosen: Tensor) -> float:
    return 100 * chosen.double().mean().item()


EVALUATOR = Realism
