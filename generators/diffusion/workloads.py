"""The networks of the diffusion methods, to be timed by ``dpbench bench``."""

from __future__ import annotations

import functools
from dataclasses import fields

from torch import nn

from dpbench.privacy.clipping import Objective
from dpbench.protocols import Workload
from dpbench.streams import initialised
from dpbench.types import ImageSpec, Precision

from .denoisers import EDM, Denoiser
from .method import LAPTOP_TRAINING
from .objective import DenoisingObjective
from .samplers import DiffusionSampler, SamplerSettings, SolverName
from .unet import UNet, UNetSettings

# Fewer than any method takes, which changes the time of a sample but not that of a step.
NOISE_LEVELS = 10
LABEL_DROPOUT = 0.1
CLASSES = 10
SOLVERS: tuple[SolverName, ...] = ("ddim", "heun")


def _workload(
    name: str, summary: str, spec: ImageSpec, settings: UNetSettings, quick: bool = False
) -> Workload:
    def build(multiplicity: int, precision: Precision) -> tuple[nn.Module, Objective]:
        network = initialised(UNet, spec, CLASSES, settings, seed=0)
        objective = DenoisingObjective(EDM(), multiplicity, CLASSES, LABEL_DROPOUT)
        return Denoiser(network, EDM(), precision), objective

    def sampler(solver: SolverName, model: nn.Module) -> DiffusionSampler:
        return DiffusionSampler(model, spec, CLASSES, SamplerSettings(solver, NOISE_LEVELS))

    samplers = {str(solver): functools.partial(sampler, solver) for solver in SOLVERS}
    return Workload(name, summary, spec, CLASSES, build, samplers, quick)


_LAPTOP = UNetSettings(
    **{
        field.name: LAPTOP_TRAINING[field.name]
        for field in fields(UNetSettings)
        if field.name in LAPTOP_TRAINING
    }
)
WORKLOADS = (
    _workload(
        "unet-laptop",
        "the denoiser of the laptop profile, 28x28 grey",
        ImageSpec(1, 28, 28),
        _LAPTOP,
        quick=True,
    ),
    _workload(
        "unet-paper",
        "DPDM's denoiser, 28x28 grey (Dockhorn et al. 2022, table 9)",
        ImageSpec(1, 28, 28),
        UNetSettings(),
    ),
    _workload(
        "unet-cifar10",
        "the same with 32x32 colour images, attention at 8x8",
        ImageSpec(3, 32, 32),
        UNetSettings(attention_resolutions=(8,)),
    ),
)
