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

from dpbench.api.method import Plan, Preset, RunContext, Sampler, Workload
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo

from .diffusion.continuous import ContinuousDiffusion
from .diffusion.method import CENTRED_CLAIMS, CENTRED_LAPTOP, SMOKE_TRAINING, TUNED
from .diffusion.workloads import WORKLOADS

_PAPER = "Dockhorn et al. 2022, tables 9 to 12"
_CHURN = {"solver": "heun", "sampling_steps": 1000}


@dataclass(frozen=True)
class DPDM(ContinuousDiffusion):
    """DPDM; fields as in ``ContinuousDiffusion``."""

    summary: ClassVar[str] = "diffusion model trained from scratch with DP-SGD"
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
        Preset(
            "laptop",
            "sized for two CPU cores; departs from the paper in network (patches, centres with "
            "widths), batch size, steps, multiplicity, learning rate, clipping norm and sampler; "
            f"{TUNED}",
            {**CENTRED_LAPTOP, "centre_widths": True},
        ),
        Preset(
            "claims",
            "as laptop, with half the channels, a quarter of the batch, fewer steps and centres "
            "without widths; EDM at every epsilon",
            CENTRED_CLAIMS,
        ),
        Preset("smoke", "the smallest that runs", SMOKE_TRAINING),
    )
    workloads: ClassVar[tuple[Workload, ...]] = WORKLOADS

    def plan(self, info: PrivateSetInfo, budget: PrivacyBudget) -> Plan:
        """One private stage."""
        self._network().check(info.spec)
        return Plan(
            stages=(self._private_stage(info),),
            events=(self._event(info, budget),),
            parameters=self._parameters(info),
        )

    def fit(self, private: PrivateImages, run: RunContext) -> Sampler:
        """Train the denoiser."""
        denoiser = self._denoiser(private.info, run.streams, "denoiser")
        denoiser.to(run.device)
        self._train_privately(private, self._event(private.info, private.budget), denoiser, run)
        return self._sampler(private, denoiser)


METHOD = DPDM
