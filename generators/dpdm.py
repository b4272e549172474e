"""DPDM: differentially private diffusion models (Dockhorn et al. 2022, arXiv 2210.09929).

A class-conditional denoiser trained from scratch with DP-SGD; each image's gradient is the mean
over K noise levels, clipped once.

Paper presets: 300 epochs of 60000 images at an expected batch size of 4096 are 4395 steps (the
released code samples with rate 1/15 and takes 4500; we keep the stated batch size). The paper
samples with 1000 steps of Heun with churn at two settings, one chosen for FID and one for accuracy;
the presets hold the accuracy setting, and the FID setting is in the preset's source.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from dpbench.api.method import Departure, Plan, Preset, RunContext, Sampler, Workload
from dpbench.core.images import Precision
from dpbench.core.state import State
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo

from .diffusion.model import DiffusionModel, continuous_model, pick
from .diffusion.presets import (
    CENTRED,
    CENTRES,
    SAMPLED_LEVELS,
    SAMPLED_ONLY,
    SPECTRUM,
    TUNED,
    laptop,
    smoke,
)
from .diffusion.samplers import SIGMA_MIN, SolverName
from .diffusion.training import PrivateTraining
from .diffusion.workloads import WORKLOADS

_PAPER = "Dockhorn et al. 2022, tables 9 to 12"
_CHURN = {"solver": "heun", "sampling_steps": 1000}


@dataclass(frozen=True)
class DPDM:
    """DPDM; defaults as in the paper.

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
    """

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "diffusion model trained from scratch with DP-SGD"
    paper: ClassVar[str] = "Dockhorn et al. 2022, arXiv 2210.09929"
    private: ClassVar[bool] = True
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset(
            "paper",
            f"{_PAPER}; v parameterization; sampler settings are those of epsilon = 1",
            {"parameterization": "v", **_CHURN, "churn": 10.0, "churn_min": 0.1},
            datasets=("mnist",),
            epsilons=(0.0, 0.2),
        ),
        Preset(
            "paper",
            f"{_PAPER}; FID setting: churn=100 churn_min=0.05",
            {**_CHURN, "churn": 10.0, "churn_min": 0.1},
            datasets=("mnist",),
            epsilons=(0.2, 1.0),
        ),
        Preset(
            "paper",
            f"{_PAPER}; FID setting: churn=50 churn_min=0.05 guidance=0.25",
            {**_CHURN, "churn": 10.0, "churn_min": 0.025},
            datasets=("mnist",),
            epsilons=(1.0, float("inf")),
        ),
        Preset(
            "paper",
            f"{_PAPER}; v parameterization; sampler settings are those of epsilon = 1",
            {"parameterization": "v", **_CHURN, "churn": 10.0, "churn_min": 0.025},
            datasets=("fashionmnist",),
            epsilons=(0.0, 0.2),
        ),
        Preset(
            "paper",
            f"{_PAPER}; FID setting: churn=50 churn_min=0.025 guidance=1",
            {**_CHURN, "churn": 10.0, "churn_min": 0.025},
            datasets=("fashionmnist",),
            epsilons=(0.2, 1.0),
        ),
        Preset(
            "paper",
            f"{_PAPER}; FID setting: churn=25 churn_min=0.2 guidance=0.25",
            {**_CHURN, "churn": 10.0, "churn_min": 0.1},
            datasets=("fashionmnist",),
            epsilons=(1.0, float("inf")),
        ),
        laptop(TUNED, **CENTRED, **SAMPLED_ONLY),
        smoke(),
    )
    departures: ClassVar[tuple[Departure, ...]] = (*CENTRES, SPECTRUM, SAMPLED_LEVELS)
    workloads: ClassVar[tuple[Workload, ...]] = WORKLOADS

    channels: int = 32
    channel_mult: tuple[int, ...] = (1, 2, 2)
    blocks: int = 2
    attention_resolutions: tuple[int, ...] = (7,)
    patch: int = 1
    batch_size: int = 4096
    steps: int = 4395
    multiplicity: int = 32
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

    def __post_init__(self) -> None:
        """Check what can be checked without images.

        Raises:
            UserError: A value is out of its range.
        """
        self.model()
        self.training()

    def model(self) -> DiffusionModel:
        """The hyper-parameters of the model, grouped."""
        return continuous_model(self)

    def training(self) -> PrivateTraining:
        """The hyper-parameters of private training, grouped."""
        return pick(PrivateTraining, self)

    def plan(self, info: PrivateSetInfo, budget: PrivacyBudget) -> Plan:
        """A private stage."""
        training = self.training()
        return Plan(
            parameters=self.model().parameters(info),
            stages=(training.stage(self.model(), info),),
            events=(training.event(info, budget),),
            sampling=self.model().sampling_probe(info),
        )

    def fit(self, private: PrivateImages, run: RunContext) -> Sampler:
        """Train the denoiser."""
        info, model, training = private.info, self.model(), self.training()
        event = training.event(info, private.budget)
        denoiser = model.denoiser(info, run.streams, "denoiser").to(run.device)
        training.train(model, denoiser, private, event, run)
        return model.sampler(info, denoiser)

    def restore(self, state: State, info: PrivateSetInfo, device: torch.device) -> Sampler:
        """Rebuild the denoiser."""
        model = self.model()
        return model.restored(info, model.blank(info), state)


METHOD = DPDM
