"""What the three variants of DP-SynGen share (Choi et al. 2024, arXiv 2412.09842).

Noise levels fall into three stages in ln sigma: coarse (above tau2), context, cleaning (below
tau1). Programmatic images, which cost no privacy, train what is common to all images.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch

from dpbench.api.method import Plan, Preset, RunContext
from dpbench.api.sources import PublicSource
from dpbench.core.checks import check_counts, check_positive
from dpbench.core.errors import UserError
from dpbench.core.registry import load
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.mechanisms import PrivateSetInfo

from .diffusion.continuous import ContinuousDiffusion
from .diffusion.denoisers import Denoiser, Experts, Interval
from .diffusion.method import CENTRED_CLAIMS, CENTRED_LAPTOP, SMOKE_TRAINING, TUNED
from .diffusion.training import opened_once, train_public_once

PAPER = Preset(
    "paper",
    "Choi et al. 2024 and its released configurations for MNIST and Fashion-MNIST; the number of "
    "synthetic images is our choice",
    datasets=("mnist", "fashionmnist"),
)
LAPTOP = Preset(
    "laptop",
    "sized for two CPU cores; departs from the paper in network (patches, centres), batch size, "
    "steps, multiplicity, learning rates, clipping norm, sampler, and in synthetic images with "
    f"classes of their own; {TUNED}",
    {
        **CENTRED_LAPTOP,
        "synthetic": "class-recipes",
        "synthetic_labels": "recipe",
        "synthetic_images": 20_000,
        "synthetic_steps": 400,
        "synthetic_multiplicity": 1,
        "synthetic_learning_rate": 1e-3,
    },
)
CLAIMS = Preset(
    "claims",
    "as laptop, with half the channels, a quarter of the private batch, fewer private steps, a "
    "quarter of the synthetic steps and a fifth of the synthetic images",
    {
        **LAPTOP.values,
        **CENTRED_CLAIMS,
        "synthetic_images": 4000,
        "synthetic_steps": 100,
    },
)
SMOKE = Preset(
    "smoke",
    "the smallest that runs",
    {
        **SMOKE_TRAINING,
        "synthetic_images": 256,
        "synthetic_steps": 20,
        "synthetic_batch_size": 32,
        "synthetic_multiplicity": 1,
    },
)


@dataclass(frozen=True)
class SynGen(ContinuousDiffusion):
    """Hyper-parameters of DP-SynGen; defaults as in the paper for 28-pixel images.

    Attributes:
        synthetic: Programmatic source of the public images.
        synthetic_labels: ``recipe`` (the source's own classes) or ``random`` (uniform).
        synthetic_images: How many are made. The paper does not say; as many as there are private
            images is our choice.
        synthetic_steps: Optimizer steps on them.
        synthetic_batch_size: Images a step.
        synthetic_multiplicity: Noise levels for each image.
        synthetic_learning_rate: Adam's.
    """

    steps: int = 2930
    multiplicity: int = 8
    synthetic: str = "dead-leaves"
    synthetic_labels: Literal["random", "recipe"] = "random"
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
        super().__post_init__()
        check_counts(
            self,
            "synthetic_images",
            "synthetic_steps",
            "synthetic_batch_size",
            "synthetic_multiplicity",
        )
        check_positive(self, "synthetic_learning_rate")
        labelled = load("source", self.synthetic).labelled
        if self.synthetic_labels == "recipe" and not labelled:
            raise UserError(
                f"the images of {self.synthetic} have no classes of their own: "
                "--set synthetic_labels=random, or --set synthetic=class-recipes"
            )

    def plan(self, info: PrivateSetInfo, budget: PrivacyBudget) -> Plan:
        """A public stage on programmatic images, then a private one."""
        self._network().check(info.spec)
        public = self._public_stage(
            info,
            f"public training on {self.synthetic}",
            self.synthetic_steps,
            self.synthetic_batch_size,
            self.synthetic_multiplicity,
        )
        return Plan(
            stages=(public, self._private_stage(info)),
            events=(self._event(info, budget),),
            parameters=self._parameters(info),
            public=self.synthetic,
        )

    @property
    @abstractmethod
    def _synthetic_interval(self) -> Interval:
        """The range of ln sigma that programmatic images train."""

    def pretrain(self, info: PrivateSetInfo, run: RunContext) -> Denoiser:
        """Train on programmatic images, or take the weights that were made so before."""
        source = run.public
        assert source is not None, "the plan names the programmatic source"
        pretraining = run.pretraining(
            self._recipe(info, source), f"public training on {self.synthetic}"
        )
        denoiser = self._denoiser(info, pretraining.streams, "denoiser").to(run.device)
        train_public_once(
            pretraining,
            opened_once(
                *(source, self.synthetic_images, info.classes, self.synthetic_labels == "recipe"),
                *(pretraining.streams, run.progress),
            ),
            self._learner(denoiser, self.synthetic_learning_rate),
            self._objective(info.classes, self.synthetic_multiplicity, self._synthetic_interval),
            self.synthetic_steps,
            self.synthetic_batch_size,
            "synthetic",
        )
        return denoiser

    def _recipe(self, info: PrivateSetInfo, source: PublicSource) -> dict[str, object]:
        synthetic = [name for name in self.__dataclass_fields__ if name.startswith("synthetic_")]
        return self._recipe_of_public(
            info,
            source,
            *("parameterization", "label_dropout", *synthetic),
            method="dpsyngen",
            interval=self._synthetic_interval,
        )


@dataclass(frozen=True)
class StagedSynGen(SynGen):
    """The variants in which one end of the noise levels never sees a private image.

    Attributes:
        experts: Two networks, one for each range, switched on sigma when sampling. Otherwise one
            network is trained on programmatic images and then on private ones, each in its range.
            The paper does not say which; experts cannot unlearn each other's range.
    """

    experts: bool = True

    def _combine(
        self, synthetic: Denoiser, private: Denoiser, threshold: float, synthetic_is_above: bool
    ) -> torch.nn.Module:
        """What to sample from: the experts, or the one network that both names mean."""
        if not self.experts:
            return private
        below, above = (private, synthetic) if synthetic_is_above else (synthetic, private)
        return Experts(below, above, math.exp(threshold))

    def _private_start(
        self, synthetic: Denoiser, info: PrivateSetInfo, run: RunContext
    ) -> Denoiser:
        """The network that private training starts from."""
        if not self.experts:
            return synthetic
        return self._denoiser(info, run.streams, "private denoiser").to(run.device)
