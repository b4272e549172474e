"""What the three variants of DP-SynGen share (Choi et al. 2024, arXiv 2412.09842).

Noise levels fall into three stages in ln sigma: coarse (above tau2), context, cleaning (below
tau1). Programmatic images, which cost no privacy, train what is common to all images.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from dpbench.api.method import Departure, Plan, Preset, RunContext, Sampler
from dpbench.core.checks import check_counts, check_not_negative, check_positive, check_shares
from dpbench.core.errors import UserError
from dpbench.core.images import Precision
from dpbench.core.registry import load
from dpbench.core.state import State
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.events import DPSGDEvent
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo

from ._statistics import Releases, pretrain, release_statistics, statistics_and_training
from .diffusion.denoiser import Denoiser, Experts
from .diffusion.model import DiffusionModel, continuous_model, pick
from .diffusion.preconditioning import EVERYWHERE, Interval
from .diffusion.presets import (
    CENTRES,
    SAMPLED_LEVELS,
    SAMPLED_ONLY,
    SPECTRUM,
    STATISTICS,
    TUNED,
    laptops_given_statistics,
    smoke,
)
from .diffusion.samplers import SIGMA_MIN, SolverName
from .diffusion.training import PrivateTraining, PublicTraining, public_recipe


def syngen_presets(**laptop_only: object) -> tuple[Preset, ...]:
    """The presets of a variant.

    Args:
        laptop_only: Values of the variant's own hyper-parameters in the laptop preset.
    """
    return (
        Preset(
            "paper",
            "Choi et al. 2024 and its released configurations for MNIST and Fashion-MNIST; the "
            "number of synthetic images is our choice",
            datasets=("mnist", "fashionmnist"),
        ),
        *laptops_given_statistics(
            TUNED,
            **{**SAMPLED_ONLY, **laptop_only},
            # 500 public steps with it have a loss of 0.37 on held-out images, 1200 without 0.39
            natural_spectrum=2.0,
            label_dropout=0.0,
            synthetic="class-recipes",
            synthetic_labels="recipe",
            synthetic_classes=400,
            synthetic_images=20_000,
            synthetic_steps=1000,
            synthetic_multiplicity=1,
            synthetic_learning_rate=1e-3,
        ),
        smoke(
            synthetic_images=256,
            synthetic_steps=20,
            synthetic_batch_size=32,
            synthetic_multiplicity=1,
        ),
    )


@dataclass(frozen=True)
class Stages:
    """Which noise levels are trained on which images.

    Attributes:
        synthetic: Range of ln sigma that programmatic images train.
        private: Range of ln sigma that private images train.
        experts: Whether each range has a network of its own, switched on sigma when sampling.
            Otherwise the network of the programmatic images is trained on.
    """

    synthetic: Interval
    private: Interval = EVERYWHERE
    experts: bool = False

    def combine(self, synthetic: Denoiser, private: Denoiser) -> nn.Module:
        """The denoiser to sample from."""
        if not self.experts:
            return private
        threshold = math.exp(max(self.synthetic[0], self.private[0]))
        if self.synthetic[0] > self.private[0]:
            return Experts(below=private, above=synthetic, threshold=threshold)
        return Experts(below=synthetic, above=private, threshold=threshold)


@dataclass(frozen=True)
class SynGen(ABC):
    """DP-SynGen; defaults as in the paper for 28-pixel images.

    Attributes:
        channels: Channels of the U-Net's first level.
        channel_mult: Channel factor of each level.
        blocks: Residual blocks at each level.
        attention_resolutions: Heights, after patching, with attention.
        patch: Pixels on the side of a patch; 1 is no patching.
        batch_size: Expected size of a Poisson batch, images.
        steps: DP-SGD steps.
        multiplicity: K, noise levels for each image of a batch.
        learning_rate: Adam's.
        centre_learning_rate: Adam's for a learnt image of each class, from which its denoised
            images start (``diffusion.denoiser.Centres``); 0: there is none.
        centre_widths: Whether each pixel of a centre has a learnt variance.
        natural_spectrum: Exponent of the power law by which the variance of the normal
            distributions that denoising starts from falls with frequency, 2 in natural images
            (``diffusion.spectrum.Spectrum``); 0: it does not.
        clipping_norm: C.
        average_decay: Decay of the weights' exponential moving average.
        sampling_steps: Noise levels when sampling.
        sigma_min: The last of them, at which the denoised image is the sample.
        trained_sigma_min: Lowest sigma that is trained; 0: all are. Levels below ``sigma_min`` take
            part in the gradient, but in no sample.
        precision: Precision of the network's activations, ``float32`` or ``bfloat16``. Norms, sums
            and noise are float32 in any case.
        parameterization: ``edm`` or ``v``.
        label_dropout: Probability of training an image without its label.
        solver: ``ddim``, ``ddim-stochastic``, ``ancestral``, ``ancestral-2m`` or ``heun``.
        churn: S_churn of ``heun``.
        churn_min: S_min of ``heun``.
        guidance: Classifier-free guidance weight w.
        statistics_share: Share of epsilon spent on noisy means and deviations of the classes'
            pixels, which denoising starts from and the network sees in place of the label
            (``diffusion.denoiser.Statistics``); 0: there are none.
        synthetic: Programmatic source of the public images.
        synthetic_labels: ``recipe`` (the source's own classes) or ``random`` (uniform).
        synthetic_classes: Number of their classes; 0: as many as the private set has. Another
            number needs class statistics, which tell the network what a class is.
        synthetic_images: Number of programmatic images. The paper does not say; as many as there
            are private images is our choice.
        synthetic_steps: Optimizer steps on them.
        synthetic_batch_size: Images in a step.
        synthetic_multiplicity: Noise levels for each image.
        synthetic_learning_rate: Adam's.
    """

    private: ClassVar[bool] = True
    departures: ClassVar[tuple[Departure, ...]] = (
        *CENTRES,
        STATISTICS,
        SPECTRUM,
        SAMPLED_LEVELS,
        Departure("class statistics", "label_dropout", 0.1, lambda value: value == 0),
        Departure("class statistics", "synthetic_classes", 0, bool),
        Departure("class recipes", "synthetic", "dead-leaves", lambda v: v == "class-recipes"),
        Departure("class recipes", "synthetic_labels", "random", lambda v: v == "recipe"),
    )

    channels: int = 32
    channel_mult: tuple[int, ...] = (1, 2, 2)
    blocks: int = 2
    attention_resolutions: tuple[int, ...] = (7,)
    patch: int = 1
    batch_size: int = 4096
    steps: int = 2930
    multiplicity: int = 8
    learning_rate: float = 3e-4
    centre_learning_rate: float = 0.0
    centre_widths: bool = False
    natural_spectrum: float = 0.0
    clipping_norm: float = 1.0
    average_decay: float = 0.999
    sampling_steps: int = 50
    sigma_min: float = SIGMA_MIN
    trained_sigma_min: float = 0.0
    precision: Precision = "float32"
    parameterization: str = "edm"
    label_dropout: float = 0.1
    solver: SolverName = "ddim"
    churn: float = 0.0
    churn_min: float = 0.0
    guidance: float = 0.0
    statistics_share: float = 0.0
    synthetic: str = "dead-leaves"
    synthetic_labels: Literal["random", "recipe"] = "random"
    synthetic_classes: int = 0
    synthetic_images: int = 60_000
    synthetic_steps: int = 140_625
    synthetic_batch_size: int = 128
    synthetic_multiplicity: int = 4
    synthetic_learning_rate: float = 4e-4

    def __post_init__(self) -> None:
        """Check what can be checked without images.

        Raises:
            UserError: A value is out of its range.
        """
        model = self.model()
        for stage in (self.stages.synthetic, self.stages.private):
            model.trained(stage)
        self.training()
        check_counts(
            self,
            "synthetic_images",
            "synthetic_steps",
            "synthetic_batch_size",
            "synthetic_multiplicity",
        )
        check_positive(self, "synthetic_learning_rate")
        check_shares(self, "statistics_share")
        check_not_negative(self, "synthetic_classes")
        if self.synthetic_classes and not self.statistics_share:
            raise UserError(
                "synthetic_classes needs class statistics: --set synthetic_classes=0, or "
                "statistics_share=0.3"
            )
        labelled = load("source", self.synthetic).labelled
        if self.synthetic_labels == "recipe" and not labelled:
            raise UserError(
                f"the images of {self.synthetic} have no classes of their own: "
                "--set synthetic_labels=random, or --set synthetic=class-recipes"
            )

    @property
    @abstractmethod
    def stages(self) -> Stages:
        """Which noise levels this variant trains on which images."""

    def model(self) -> DiffusionModel:
        """The hyper-parameters of the model, grouped."""
        return continuous_model(self, statistics=bool(self.statistics_share))

    def training(self) -> PrivateTraining:
        """The hyper-parameters of private training, grouped."""
        return pick(PrivateTraining, self)

    def public_training(self) -> PublicTraining:
        """The hyper-parameters of training on programmatic images, grouped."""
        return PublicTraining(
            name="synthetic",
            label=f"public training on {self.synthetic}",
            steps=self.synthetic_steps,
            batch_size=self.synthetic_batch_size,
            multiplicity=self.synthetic_multiplicity,
            learning_rate=self.synthetic_learning_rate,
        )

    def plan(self, info: PrivateSetInfo, budget: PrivacyBudget) -> Plan:
        """A public stage on programmatic images, then a private one."""
        model = self.model()
        training = self.training()
        releases, event = self._events(info, budget)
        return Plan(
            parameters=model.parameters(info),
            stages=(
                self.public_training().stage(model, info),
                training.stage(model, info),
            ),
            events=(*(releases or ()), event),
            public=self.synthetic,
            sampling=model.sampling_probe(info),
        )

    def _events(
        self, info: PrivateSetInfo, budget: PrivacyBudget
    ) -> tuple[Releases | None, DPSGDEvent]:
        return statistics_and_training(self.statistics_share, self.training(), info, budget)

    def fit(self, private: PrivateImages, run: RunContext) -> Sampler:
        """Train on programmatic images, then on private ones."""
        info, model, training = private.info, self.model(), self.training()
        releases, event = self._events(info, private.budget)
        synthetic = denoiser = self.pretrain(info, run)
        if self.stages.experts:
            denoiser = model.denoiser(info, run.streams, "private denoiser").to(run.device)
        if releases:
            statistics = release_statistics(private, releases)
            synthetic = model.given(synthetic, statistics)
            denoiser = model.given(denoiser, statistics) if self.stages.experts else synthetic
        training.train(model, denoiser, private, event, run, self.stages.private)
        return model.sampler(info, self.stages.combine(synthetic, denoiser))

    def restore(self, state: State, info: PrivateSetInfo, device: torch.device) -> Sampler:
        """Rebuild the denoiser."""
        model = self.model()
        denoiser = self.stages.combine(model.blank(info), model.blank(info))
        return model.restored(info, denoiser, state)

    def pretrain(self, info: PrivateSetInfo, run: RunContext) -> Denoiser:
        """Train on programmatic images, or load the weights that an equal training left."""
        source = run.public
        assert source is not None, "the plan names the programmatic source"
        model, training = self.model(), self.public_training()
        names = [name for name in self.__dataclass_fields__ if name.startswith("synthetic_")]
        recipe = public_recipe(
            self,
            info,
            source,
            ("parameterization", "label_dropout", *names),
            method="dpsyngen",
            statistics=bool(self.statistics_share),
            interval=model.trained(self.stages.synthetic),
        )
        pretraining = run.pretraining(recipe, training.label)
        denoiser = model.denoiser(info, pretraining.streams, "denoiser").to(run.device)
        classes = self.synthetic_classes or info.classes
        pretrain(
            model,
            denoiser,
            training,
            pretraining,
            source,
            count=self.synthetic_images,
            classes=classes,
            labelled=self.synthetic_labels == "recipe",
            progress=run.progress,
            interval=self.stages.synthetic,
        )
        return denoiser
