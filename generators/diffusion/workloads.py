"""The networks of the diffusion methods, to be timed by ``dpbench bench``."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import fields

from torch import nn

from dpbench.api.method import Workload
from dpbench.core.images import ImageSpec, Precision
from dpbench.core.streams import initialised
from dpbench.privacy.clipping import Objective
from dpbench.training.augmentation import PLAIN, Augmentation

from .denoiser import Denoiser
from .loss import DenoisingObjective
from .networks.ddpm import ADMUNet
from .networks.ddpmpp import DDPMPP
from .networks.unet import UNet, UNetSettings
from .preconditioning import DDPM, EDM
from .presets import LAPTOP
from .samplers import DiffusionSampler, SamplerSettings, ddpm_levels

# Fewer than in any method: this changes the time of a sample but not of a step.
NOISE_LEVELS = 10
CLASSES = 10
GREY, COLOUR = ImageSpec(1, 28, 28), ImageSpec(3, 32, 32)


def _workload(
    name: str,
    summary: str,
    spec: ImageSpec,
    settings: UNetSettings,
    *,
    parameterization: EDM | DDPM,
    samplers: Iterable[SamplerSettings],
    network: type[UNet] = DDPMPP,
    label_dropout: float = 0.0,
    augmentation: Augmentation = PLAIN,
    quick: bool = False,
) -> Workload:
    def build(multiplicity: int, precision: Precision) -> tuple[nn.Module, Objective]:
        built = initialised(network, spec, CLASSES, settings, seed=0)
        objective = DenoisingObjective(
            parameterization, multiplicity, CLASSES, label_dropout, augmentation=augmentation
        )
        return Denoiser(built, parameterization, precision), objective

    def sampler(settings: SamplerSettings, model: nn.Module) -> DiffusionSampler:
        return DiffusionSampler(model, spec, CLASSES, settings)

    by_solver = {str(each.solver): functools.partial(sampler, each) for each in samplers}
    return Workload(name, summary, spec, CLASSES, build, by_solver, quick)


_LAPTOP = UNetSettings(
    **{field.name: LAPTOP[field.name] for field in fields(UNetSettings) if field.name in LAPTOP}
)
_dpdm = functools.partial(
    _workload,
    parameterization=EDM(),
    samplers=(SamplerSettings("ddim", NOISE_LEVELS), SamplerSettings("heun", NOISE_LEVELS)),
    label_dropout=0.1,
)
_ddpm = functools.partial(
    _workload,
    parameterization=DDPM(),
    samplers=[
        SamplerSettings(solver, NOISE_LEVELS, ddpm_levels, clip=True)
        for solver in ("ddim", "ancestral")
    ],
    network=ADMUNet,
)
WORKLOADS = (
    _dpdm(
        "unet-laptop",
        "the denoiser of the laptop profile, 28x28 grey",
        GREY,
        _LAPTOP,
        quick=True,
    ),
    _dpdm(
        "unet-paper",
        "DPDM's denoiser, 28x28 grey (Dockhorn et al. 2022, table 9)",
        GREY,
        UNetSettings(),
    ),
    _dpdm(
        "unet-cifar10",
        "the same with 32x32 colour images, attention at 8x8",
        COLOUR,
        UNetSettings(attention_resolutions=(8,)),
    ),
)
DDPM_WORKLOADS = (
    _ddpm(
        "ddpm-laptop",
        "DDPM's denoiser of the laptop profile, 28x28 grey",
        GREY,
        _LAPTOP,
        quick=True,
    ),
    _ddpm(
        "ddpm-mnist",
        "DDPM's denoiser, 28x28 grey (Ghalebikesabi et al. 2023, table 3)",
        GREY,
        UNetSettings(64, (1, 2, 2), 1, (16,)),
    ),
    _ddpm(
        "ddpm-cifar10",
        "DDPM's denoiser, 32x32 colour, copies mirrored (Ghalebikesabi et al. 2023, table 3)",
        COLOUR,
        UNetSettings(192, (1, 2, 2, 2), 2, (16,)),
        augmentation=Augmentation(flip=True),
    ),
)
