"""Profiles: sizes of a run. Leaderboards have a column for the profile."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from dpbench.core.checks import check_counts
from dpbench.core.errors import UserError

Discriminator: TypeAlias = Literal["small-cnn", "resnet18"]
Grid: TypeAlias = Literal["tiny", "small", "published"]
FEWEST_STEPS = 5


@dataclass(frozen=True)
class ComputeBudget:
    """Limits on what a method may spend on training in a profile.

    A gradient evaluation is one forward and backward pass of one image (or of one noised or
    augmented copy of it). Plans over the limits are refused before training, and evaluations over
    the plan before they are made. Time cannot be known in advance and must not end private training
    early, since the number of steps would then depend on the machine; so ``train_seconds`` is only
    compared with the estimate, warned about and recorded.

    Attributes:
        private_evaluations: Limit of gradient evaluations on private images, expected over Poisson
            sampling.
        public_evaluations: Limit of gradient evaluations on public or programmatic images.
        train_seconds: Training time on the profile's reference machine; ``inf`` for no limit.
    """

    private_evaluations: int
    public_evaluations: int
    train_seconds: float


def _check_steps(steps: int) -> None:
    if steps < FEWEST_STEPS:
        raise UserError(
            f"steps must be at least {FEWEST_STEPS}, so that the learning rate can rise for a "
            f"quarter of them; got {steps}"
        )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


@dataclass(frozen=True)
class CasSettings:
    """Classifiers that evaluator ``cas`` trains.

    Attributes:
        steps: Optimizer steps of each of three small classifiers; None to train the classifiers of
            the papers in their place, for as long as the papers say.
        ensemble: Whether an ensemble of five CNNs is trained too.

    Raises:
        UserError: There are too few steps.
    """

    steps: int | None
    ensemble: bool

    def __post_init__(self) -> None:
        """Check the range."""
        if self.steps is not None:
            _check_steps(self.steps)


@dataclass(frozen=True)
class RealismSettings:
    """Discriminator that evaluator ``realism`` trains.

    Attributes:
        network: Its architecture.
        steps: Its optimizer steps.
        images: Largest number of images per side (private, public), in training and again in
            testing.

    Raises:
        UserError: The network is unknown, or there are too few steps or images.
    """

    network: Discriminator
    steps: int
    images: int

    def __post_init__(self) -> None:
        """Check the choice and the ranges."""
        _check_choice("network", self.network, get_args(Discriminator))
        _check_steps(self.steps)
        check_counts(self, "images")


@dataclass(frozen=True)
class ScalingSettings:
    """Learning curve that evaluator ``scaling`` measures.

    Attributes:
        steps: Optimizer steps of the CNN, the same at every size.
        sizes: Numbers of training images, rising.
        ensemble: Whether an ensemble of five CNNs is trained too, at every size.

    Raises:
        UserError: The sizes do not rise from 1 at least, or there are too few steps.
    """

    steps: int
    sizes: tuple[int, ...]
    ensemble: bool

    def __post_init__(self) -> None:
        """Check the ranges and the order."""
        _check_steps(self.steps)
        if not self.sizes or self.sizes[0] < 1 or [*self.sizes] != sorted({*self.sizes}):
            raise UserError(f"sizes must be rising numbers of images from 1, got {self.sizes}")


@dataclass(frozen=True)
class ModelSelectionSettings:
    """Configurations that evaluator ``model_selection`` trains.

    Attributes:
        grid: Which configurations: four, twelve, or the 33 of Ghalebikesabi et al. 2023.
        steps: Optimizer steps of each configuration.

    Raises:
        UserError: The grid is unknown, or there are too few steps.
    """

    grid: Grid
    steps: int

    def __post_init__(self) -> None:
        """Check the choice and the range."""
        _check_choice("grid", self.grid, get_args(Grid))
        _check_steps(self.steps)


@dataclass(frozen=True)
class EvaluationSettings:
    """Work of the evaluators whose work depends on the profile.

    Attributes:
        cas: Classifiers of the classification accuracy score.
        realism: Discriminator of private and public images.
        scaling: Accuracy against the number of images.
        model_selection: Grid of configurations to select from.
        seconds: Time of an evaluator on the reference machine, on average over the built-in ones,
            until runs show how long each takes; None if it was never measured.
    """

    cas: CasSettings
    realism: RealismSettings
    scaling: ScalingSettings
    model_selection: ModelSelectionSettings
    seconds: float | None = None


@dataclass(frozen=True)
class Profile:
    """Size of a run: how much is trained, drawn and evaluated.

    Attributes:
        name: Its CLI name.
        compute: Limits on training.
        samples: Number of synthetic images drawn and scored.
        evaluation: Settings of the evaluators.
        description: One-line summary.
        presets: Name of the profile whose presets its runs start from; ``""`` for its own.
    """

    name: str
    compute: ComputeBudget
    samples: int
    evaluation: EvaluationSettings
    description: str
    presets: str = ""


SMOKE = Profile(
    name="smoke",
    compute=ComputeBudget(private_evaluations=8_000, public_evaluations=8_000, train_seconds=30),
    samples=200,
    evaluation=EvaluationSettings(
        cas=CasSettings(steps=60, ensemble=False),
        realism=RealismSettings("small-cnn", steps=60, images=500),
        scaling=ScalingSettings(steps=20, sizes=(50, 200), ensemble=False),
        model_selection=ModelSelectionSettings("tiny", steps=20),
        seconds=1,
    ),
    description="does it run at all: under a minute on the digits; its scores mean nothing",
)
CLAIMS = Profile(
    name="claims",
    compute=ComputeBudget(private_evaluations=40_960, public_evaluations=12_800, train_seconds=90),
    samples=2500,
    evaluation=EvaluationSettings(
        # fewer steps than in laptop, for a quarter of its images and five CNNs
        cas=CasSettings(steps=100, ensemble=True),
        realism=RealismSettings("small-cnn", steps=100, images=500),
        # an ensemble would be five CNNs at every size
        scaling=ScalingSettings(steps=100, sizes=(250, 2500), ensemble=False),
        model_selection=ModelSelectionSettings("small", steps=100),
        seconds=8,
    ),
    description="two CPU cores, at most 3 minutes a run: many seeds and small differences",
    presets="laptop",  # made smaller by the settings of each claim's runs
)
LAPTOP = Profile(
    name="laptop",
    compute=ComputeBudget(
        private_evaluations=250_000, public_evaluations=250_000, train_seconds=15 * 60
    ),
    samples=10_000,
    evaluation=EvaluationSettings(
        # four more CNNs of 600 steps would multiply the processor time by 4.6, and five of 150
        # steps do worse together than one of 600: 85.6% on real Fashion-MNIST against 88.6%
        cas=CasSettings(steps=600, ensemble=False),
        # a step of ResNet18 takes ten seconds on two cores, a programmatic image several
        # milliseconds; the small CNN tells Fashion-MNIST from dead leaves with 99.9% accuracy
        realism=RealismSettings("small-cnn", steps=200, images=1000),
        # fewer steps would not pass over the largest set twice, and its accuracy would be lowest
        scaling=ScalingSettings(steps=200, sizes=(1000, 3000, 10_000), ensemble=False),
        model_selection=ModelSelectionSettings("small", steps=100),
        seconds=25,
    ),
    description="two CPU cores, at most 20 minutes a run",
)
PAPER = Profile(
    name="paper",
    compute=ComputeBudget(
        # the largest of the papers' configurations: Ghalebikesabi et al. 2023 on MNIST at epsilon
        # 32, 12,800 steps of 4096 images with 128 copies each
        private_evaluations=12_800 * 4096 * 128,
        public_evaluations=1_000_000_000,
        train_seconds=math.inf,
    ),
    samples=60_000,
    # as in Ghalebikesabi et al. 2023, where the paper states it
    evaluation=EvaluationSettings(
        cas=CasSettings(steps=None, ensemble=True),
        realism=RealismSettings("resnet18", steps=5000, images=50_000),
        scaling=ScalingSettings(
            steps=20_000,  # table 4, CIFAR-10
            sizes=(50_000, 100_000, 200_000, 500_000, 1_000_000),  # the first and last are stated
            ensemble=True,
        ),
        model_selection=ModelSelectionSettings("published", steps=15_000),
    ),
    description="the papers' own configurations; needs GPUs",
)
PROFILES = {profile.name: profile for profile in (SMOKE, CLAIMS, LAPTOP, PAPER)}
