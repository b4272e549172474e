"""What the diffusion methods have in common: fields, and the stages of training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from dpbench.api.method import PlannedStage, RunContext
from dpbench.api.sources import PublicSource
from dpbench.core.checks import check_counts, check_not_negative, check_positive, check_shares
from dpbench.core.errors import UserError
from dpbench.core.images import Precision
from dpbench.core.streams import Streams, initialised
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.dpsgd import Learner
from dpbench.privacy.events import DPSGDEvent, Event
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo
from dpbench.privacy.throughput import private_speed
from dpbench.training.averaging import ExponentialAverage

from .denoisers import EVERYWHERE, Centres, Denoiser, Interval, Parameterization
from .objective import DenoisingObjective
from .samplers import DiffusionSampler, SamplerSettings
from .training import public_speed
from .unet import DDPMPP, Layers, UNet, UNetSettings

# What the size of a network depends on.
NETWORK = ("channels", "channel_mult", "blocks", "attention_resolutions", "patch")
# Two CPU cores: a small network on patches (0.55M parameters at 28 pixels), few steps with a large
# batch, no noise multiplicity. One trial of dpsyngen at epsilon = 10 on a validation split was
# looked at; that is not accounted for.
LAPTOP_TRAINING: dict[str, Any] = {
    "patch": 4,
    "channel_mult": (2,),
    "blocks": 1,
    "batch_size": 1024,
    "steps": 100,
    "multiplicity": 1,
    "learning_rate": 1e-3,
    "clipping_norm": 0.5,
    "average_decay": 0.9,
    "sampling_steps": 25,
}
# A network a quarter of that size and a tenth of the private evaluations, so that claims can be
# tried with several seeds; K = 4 takes all that the profile allows. Nothing was tuned.
CLAIMS_TRAINING: dict[str, Any] = {
    **LAPTOP_TRAINING,
    "channels": 16,
    "batch_size": 256,
    "steps": 40,
    "sampling_steps": 20,
}
# The same with a centre for each class, half the steps and half the noise levels.
TUNED = (
    "chosen in a dozen trials at epsilon 1 and 10 on 5000 images held out of Fashion-MNIST's train "
    "split, which is not accounted for"
)
CENTRED = {"centre_learning_rate": 0.004, "sampling_steps": 12}
CENTRED_LAPTOP: dict[str, Any] = {**LAPTOP_TRAINING, **CENTRED, "steps": 50}
CENTRED_CLAIMS: dict[str, Any] = {**CLAIMS_TRAINING, **CENTRED}
SMOKE_TRAINING: dict[str, Any] = {
    "patch": 4,
    "channels": 16,
    "channel_mult": (1,),
    "blocks": 1,
    "attention_resolutions": (),
    "batch_size": 64,
    "steps": 6,
    "multiplicity": 2,
    "sampling_steps": 4,
}


@dataclass(frozen=True)
class DiffusionMethod(ABC):
    """Hyper-parameters of a diffusion model trained with DP-SGD; defaults as in DPDM's paper.

    Attributes:
        channels: Of the U-Net's first level.
        channel_mult: Channel factor of each level.
        blocks: Residual blocks a level.
        attention_resolutions: Heights (after patching) with attention.
        patch: Pixels on the side of a patch; 1 is no patching.
        batch_size: Expected size of a Poisson batch, images.
        steps: DP-SGD steps.
        multiplicity: K, noise levels for each image of a batch.
        learning_rate: Adam's.
        centre_learning_rate: Adam's of an image for each class that its denoised images start from
            (``denoisers.Centres``); 0: there is none.
        centre_widths: Whether each pixel of a centre has a variance, learnt as the centre is.
        clipping_norm: C.
        average_decay: Of the weights' exponential moving average.
        sampling_steps: Noise levels when sampling.
        precision: What the network computes in, ``float32`` or ``bfloat16``. Norms, sums and noise
            are float32 in any case.
    """

    private: ClassVar[bool] = True

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
    clipping_norm: float = 1.0
    average_decay: float = 0.999
    sampling_steps: int = 50
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        """Check what can be checked without images.

        Raises:
            UserError: A value is out of its range.
        """
        self._parameterization()
        check_counts(self, "batch_size", "steps", "multiplicity")
        check_positive(self, "learning_rate", "clipping_norm")
        check_shares(self, "average_decay")
        check_not_negative(self, "centre_learning_rate")
        if self.centre_widths and not self.centre_learning_rate:
            raise UserError("centre_widths needs centres: --set centre_learning_rate=0.004")
        self._network()
        self._sampling()

    @abstractmethod
    def _parameterization(self) -> Parameterization:
        """Of the denoiser, and of private training."""

    @abstractmethod
    def _sampling(self) -> SamplerSettings:
        """How images are drawn."""

    @abstractmethod
    def _objective(
        self, classes: int, multiplicity: int, interval: Interval = EVERYWHERE
    ) -> DenoisingObjective:
        """Of private training, at noise levels in ``interval``."""

    def _layers(self) -> Layers:
        """What the network is made of."""
        return DDPMPP

    def _network(self) -> UNetSettings:
        return UNetSettings(
            self.channels, self.channel_mult, self.blocks, self.attention_resolutions, self.patch
        )

    def _event(
        self, info: PrivateSetInfo, budget: PrivacyBudget, others: tuple[Event, ...] = ()
    ) -> DPSGDEvent:
        """Training that spends what the other events leave of the budget."""
        return info.training(
            budget, self.batch_size, self.steps, self.clipping_norm, "denoiser weights", others
        )

    def _denoiser(self, info: PrivateSetInfo, streams: Streams, name: str) -> Denoiser:
        seed = streams.seed("initial", name)
        settings = self._network(), self._layers()
        network = initialised(UNet, info.spec, info.classes, *settings, seed=seed)
        return Denoiser(network, self._parameterization(), self.precision, self._centres(info))

    def _centres(self, info: PrivateSetInfo) -> Centres | None:
        if not self.centre_learning_rate:
            return None
        return Centres(info.spec, info.classes, self.centre_widths)

    def _learner(self, denoiser: Denoiser, learning_rate: float) -> Learner:
        groups = [{"params": list(denoiser.network.parameters()), "lr": learning_rate}]
        if denoiser.centres is not None:
            centres = list(denoiser.centres.parameters())
            groups.append({"params": centres, "lr": self.centre_learning_rate})
        return Learner(
            denoiser,
            torch.optim.Adam(groups, fused=True),
            ExponentialAverage(denoiser, self.average_decay),
        )

    def _parameters(self, info: PrivateSetInfo) -> int:
        with torch.device("meta"):
            network = UNet(info.spec, info.classes, self._network(), self._layers())
            denoiser = Denoiser(network, self._parameterization(), centres=self._centres(info))
        return sum(p.numel() for p in denoiser.parameters())

    def _public_stage(
        self, info: PrivateSetInfo, name: str, steps: int, batch_size: int, multiplicity: int
    ) -> PlannedStage:
        return PlannedStage(
            name,
            steps,
            steps * batch_size * multiplicity,
            private=False,
            probe=lambda device: self._public_speed(info, batch_size, device),
        )

    def _public_speed(self, info: PrivateSetInfo, batch_size: int, device: torch.device) -> float:
        """Gradient evaluations per second of a public step, on black images."""
        denoiser = self._denoiser(info, Streams(0), "probe").to(device)
        objective = self._objective(info.classes, multiplicity=1)
        return public_speed(denoiser, objective, info, batch_size)

    def _recipe_of_public(
        self, info: PrivateSetInfo, source: PublicSource, *names: str, **others: object
    ) -> dict[str, object]:
        """Everything that the weights of public training depend on, for ``run.pretraining``.

        Args:
            info: Shape and classes of the denoiser.
            source: Of the images.
            names: Hyper-parameters of the method's own.
            others: What is no hyper-parameter.
        """
        shared = (
            *(*NETWORK, "precision", "average_decay"),
            *("centre_learning_rate", "centre_widths"),
        )
        return {
            "images": source.identity,
            "shape": info.spec.shape,
            "classes": info.classes,
            **{name: getattr(self, name) for name in (*shared, *names)},
            **others,
        }

    def _private_stage(self, info: PrivateSetInfo) -> PlannedStage:
        return PlannedStage(
            "private training",
            self.steps,
            self.steps * self.batch_size * self.multiplicity,
            private=True,
            probe=lambda device: self._private_speed(info, device),
        )

    def _private_speed(self, info: PrivateSetInfo, device: torch.device) -> float:
        """Gradient evaluations per second of the private step, on black images."""
        denoiser = self._denoiser(info, Streams(0), "probe").to(device)
        # more copies would take a large network minutes, and are at most a quarter faster each
        objective = self._objective(info.classes, multiplicity=1)
        return private_speed(denoiser, objective, info, self.clipping_norm)

    def _train_privately(
        self,
        private: PrivateImages,
        event: DPSGDEvent,
        denoiser: Denoiser,
        run: RunContext,
        interval: Interval = EVERYWHERE,
    ) -> None:
        """Train with DP-SGD and leave the averaged weights in ``denoiser``."""
        learner = self._learner(denoiser, self.learning_rate)
        private.dp_sgd(
            learner,
            self._objective(private.info.classes, self.multiplicity, interval),
            event,
            run.stage("private", "private training"),
        )
        learner.average.copy_to(denoiser)

    def _sampler(self, private: PrivateImages, denoiser: torch.nn.Module) -> DiffusionSampler:
        info = private.info
        return DiffusionSampler(denoiser, info.spec, info.classes, self._sampling())
