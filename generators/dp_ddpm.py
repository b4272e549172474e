"""DP fine-tuned DDPM (Ghalebikesabi et al. 2023, arXiv 2302.13861).

A class-conditional DDPM, pre-trained on public images or not, fine-tuned with DP-Adam: very large
batches, few steps, the mean gradient over 128 copies of each image (time step, noise and
augmentation) clipped once, and time steps from a mixture that favours the middle ones. There is no
guidance, so labels are never dropped.

Where the paper leaves room or contradicts itself, table 3 is followed:

- Its text injects embeddings by adaptive GroupNorm, which is the default here, but the sizes that
  it states (80.4M, 4.2M) are those of added embeddings: see ``diffusion.networks.ddpm``.
- Attention is at resolution 16 for all data sets; images of 28 pixels never have it, and 4.2M
  parameters leave no room for attention elsewhere than in the middle.
- For CIFAR-10 the text has weights .15, .785, .2 at 0, 30, 60 (then 600), 1000, which add up to
  more than 1. Attention heads have 16 channels in the text, 64 in the table.
- Camelyon17's delta is 3e-6 in the text and table 1, 1e-5 in table 3; here the budget sets it.
- Copies are mirrored in table 3, and in the text also cropped (``crop``).
- MNIST's noise multiplier 2.852 is not used: all are calibrated for the budget by PLD.
- The average of decay .9999 would hardly move in 200 steps, so its decay is warmed up.
- Neither the pre-training's learning rate nor the sampler is stated: Ho et al. 2020's, 2e-4 and
  ancestral sampling through all 1000 steps, are our choice.

Steps are proportional to epsilon (section 5.5), and stated for 10; the paper has results for 1, 5,
10 and 32. The paper presets hold for the epsilons around each of these: up to 2, 7, 18 and above.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from dpbench.api.method import Departure, Plan, Preset, RunContext, Sampler, Workload
from dpbench.api.sources import NO_PUBLIC, PublicSource
from dpbench.core.checks import check_counts, check_not_negative, check_positive, check_shares
from dpbench.core.errors import UserError
from dpbench.core.images import Precision
from dpbench.core.registry import entries
from dpbench.core.state import State
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.events import DPSGDEvent
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo
from dpbench.training.augmentation import PLAIN, Augmentation

from ._statistics import Releases, pretrain, release_statistics, statistics_and_training
from .diffusion.denoiser import STATE_OF_CLASSES, Denoiser
from .diffusion.model import DiffusionModel, pick
from .diffusion.networks.ddpm import BY_EMBEDDING, EmbeddingName
from .diffusion.networks.unet import UNetSettings
from .diffusion.preconditioning import DDPM
from .diffusion.presets import CENTRES, SPECTRUM, STATISTICS, TUNED, laptops_given_statistics, smoke
from .diffusion.samplers import DDPMSolverName, SamplerSettings, ddpm_levels
from .diffusion.training import PrivateTraining, PublicTraining, public_recipe
from .diffusion.workloads import DDPM_WORKLOADS

_FINE_TUNED: Mapping[str, Any] = {
    "channels": 192,
    "channel_mult": (1, 2, 2, 2),
    "blocks": 2,
    "batch_size": 16_384,
    "steps": 200,
    "learning_rate": 1e-3,
    "mixture_weights": (0.015, 0.785, 0.2),
    "mixture_breakpoints": (0, 30, 600, 1000),
    "flip": True,
    "public": "imagenet32",
}


def _paper(dataset: str, source: str, values: Mapping[str, Any]) -> tuple[Preset, ...]:
    """Return a preset for each epsilon of the paper; ``values`` has the steps for epsilon 10."""
    around = {1: (0.0, 2.0), 5: (2.0, 7.0), 10: (7.0, 18.0), 32: (18.0, math.inf)}
    return tuple(
        Preset(
            "paper",
            f"Ghalebikesabi et al. 2023, {source}; steps for epsilon {epsilon}",
            {**values, "steps": values["steps"] * epsilon // 10},
            datasets=(dataset,),
            epsilons=interval,
        )
        for epsilon, interval in around.items()
    )


@dataclass(frozen=True)
class DPDDPM:
    """DP fine-tuned DDPM; defaults as in the paper for MNIST, and for ImageNet32 in public.

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
        last_time_step: The last of them, at which the denoised image is the sample; 0 to 999.
        precision: Precision of the network's activations, ``float32`` or ``bfloat16``. Norms, sums
            and noise are float32 in any case.
        embedding: How time and class enter a block: ``adaptive`` (GroupNorm's scale and shift) or
            ``additive``.
        mixture_weights: Shares of the time steps between ``mixture_breakpoints``.
        mixture_breakpoints: Bounds of the mixture's parts, from 0 to 1000.
        flip: Whether each copy is mirrored with probability 1/2.
        crop: Largest shift of each copy, in pixels.
        solver: ``ancestral``, ``ancestral-2m`` or ``ddim``.
        statistics_share: Share of epsilon spent on noisy means and deviations of the classes'
            pixels, which denoising starts from and the network sees in place of the label
            (``diffusion.denoiser.Statistics``); 0: there are none.
        public: Public images to pre-train on: a data set, imagefolder:PATH or a programmatic
            source; none: from scratch.
        public_classes: Number of classes of a programmatic source that tells them apart; 0: as
            many as the private set has. Another number needs class statistics, which tell the
            network what a class is.
        public_images: Number of public images, at most.
        public_steps: Optimizer steps on them.
        public_batch_size: Images in a step.
        public_multiplicity: Time steps for each image.
        public_learning_rate: Adam's, after the warm-up.
        public_warmup_steps: Steps in which it rises from 0.
        public_mixture_weights: As for private training.
        public_mixture_breakpoints: As for private training.
    """

    version: ClassVar[int] = 1
    summary: ClassVar[str] = (
        "DDPM pre-trained on public images, fine-tuned with large DP-SGD batches"
    )
    paper: ClassVar[str] = "Ghalebikesabi et al. 2023, arXiv 2302.13861"
    requires: ClassVar[str] = "public images (`--public`), or none"
    private: ClassVar[bool] = True
    presets: ClassVar[tuple[Preset, ...]] = (
        *_paper("mnist", "section 5.3 and table 3", {"steps": 4000}),
        *_paper(
            "fashionmnist",
            "section 5.3 and table 3 for MNIST (that it holds for Fashion-MNIST is our extension)",
            {"steps": 4000},
        ),
        *_paper("cifar10", "section 5.5 and table 3", _FINE_TUNED),
        *_paper("camelyon17", "section 5.4 and table 3", _FINE_TUNED),
        *laptops_given_statistics(
            TUNED,
            channels=32,
            solver="ancestral-2m",
            last_time_step=20,
            public="class-recipes",
            public_classes=400,
            public_images=20_000,
            public_steps=1000,
            public_batch_size=128,
            public_learning_rate=1e-3,
            public_warmup_steps=50,
        ),
        smoke(
            average_decay=0.9,
            public_images=256,
            public_steps=20,
            public_batch_size=32,
            public_warmup_steps=5,
        ),
    )
    departures: ClassVar[tuple[Departure, ...]] = (
        *CENTRES,
        STATISTICS,
        SPECTRUM,
        Departure("class statistics", "public_classes", 0, bool),
        Departure("class recipes", "public", NO_PUBLIC, lambda value: value == "class-recipes"),
    )
    workloads: ClassVar[tuple[Workload, ...]] = DDPM_WORKLOADS

    channels: int = 64
    channel_mult: tuple[int, ...] = (1, 2, 2)
    blocks: int = 1
    attention_resolutions: tuple[int, ...] = (16,)
    patch: int = 1
    batch_size: int = 4096
    steps: int = 4000
    multiplicity: int = 128
    learning_rate: float = 5e-4
    centre_learning_rate: float = 0.0
    centre_widths: bool = False
    natural_spectrum: float = 0.0
    clipping_norm: float = 1e-3
    average_decay: float = 0.9999
    sampling_steps: int = 1000
    last_time_step: int = 0
    precision: Precision = "float32"
    embedding: EmbeddingName = "adaptive"
    mixture_weights: tuple[float, ...] = (0.05, 0.9, 0.05)
    mixture_breakpoints: tuple[int, ...] = (0, 200, 800, 1000)
    flip: bool = False
    crop: int = 0
    solver: DDPMSolverName = "ancestral"
    statistics_share: float = 0.0
    public: str = NO_PUBLIC
    public_classes: int = 0
    public_images: int = 1_281_167
    public_steps: int = 200_000
    public_batch_size: int = 1024
    public_multiplicity: int = 1
    public_learning_rate: float = 2e-4
    public_warmup_steps: int = 5000
    public_mixture_weights: tuple[float, ...] = (0.03, 0.77, 0.2)
    public_mixture_breakpoints: tuple[int, ...] = (0, 30, 800, 1000)

    def __post_init__(self) -> None:
        """Check what can be checked without images.

        Raises:
            UserError: A value is out of its range.
        """
        self.model()
        self.training()
        check_counts(
            self, "public_images", "public_steps", "public_batch_size", "public_multiplicity"
        )
        check_positive(self, "public_learning_rate")
        check_not_negative(self, "crop", "public_warmup_steps")
        check_shares(self, "statistics_share")
        check_not_negative(self, "public_classes")
        if self.public_classes and not self.statistics_share:
            raise UserError(
                "public_classes needs class statistics: --set public_classes=0, or "
                "statistics_share=0.3"
            )
        self.public_model()

    def model(self) -> DiffusionModel:
        """The hyper-parameters of the model, grouped."""
        network = BY_EMBEDDING[self.embedding]
        return DiffusionModel(
            network=functools.partial(network, settings=pick(UNetSettings, self)),
            parameterization=DDPM(self.mixture_weights, self.mixture_breakpoints),
            sampling=SamplerSettings(
                solver=self.solver,
                steps=self.sampling_steps,
                levels=functools.partial(ddpm_levels, last=self.last_time_step),
                clip=True,
            ),
            precision=self.precision,
            average_decay=self.average_decay,
            centre_learning_rate=self.centre_learning_rate,
            centre_widths=self.centre_widths,
            natural_spectrum=self.natural_spectrum,
            augmentation=Augmentation(self.flip, self.crop),
            statistics=bool(self.statistics_share),
        )

    def public_model(self) -> DiffusionModel:
        """The model as it is trained in public: other time steps, and images as they are."""
        mixture = DDPM(self.public_mixture_weights, self.public_mixture_breakpoints)
        return replace(self.model(), parameterization=mixture, augmentation=PLAIN)

    def training(self) -> PrivateTraining:
        """The hyper-parameters of private training, grouped."""
        return pick(PrivateTraining, self)

    def public_training(self) -> PublicTraining:
        """The hyper-parameters of public training, grouped."""
        return PublicTraining(
            name="public",
            label=f"public training on {self.public}",
            steps=self.public_steps,
            batch_size=self.public_batch_size,
            multiplicity=self.public_multiplicity,
            learning_rate=self.public_learning_rate,
            warmup_steps=self.public_warmup_steps,
        )

    def plan(self, info: PrivateSetInfo, budget: PrivacyBudget) -> Plan:
        """A public stage where there are public images, then a private one."""
        training = self.training()
        releases, event = self._events(info, budget)
        stages = [training.stage(self.model(), info)]
        if self._pretrains:
            stages.insert(0, self.public_training().stage(self.public_model(), info))
        return Plan(
            parameters=self.model().parameters(info),
            stages=tuple(stages),
            events=(*(releases or ()), event),
            public=self.public,
            sampling=self.model().sampling_probe(info),
        )

    def _events(
        self, info: PrivateSetInfo, budget: PrivacyBudget
    ) -> tuple[Releases | None, DPSGDEvent]:
        return statistics_and_training(self.statistics_share, self.training(), info, budget)

    def fit(self, private: PrivateImages, run: RunContext) -> Sampler:
        """Pre-train, or start from scratch, and train privately."""
        info, model, training = private.info, self.model(), self.training()
        releases, event = self._events(info, private.budget)
        denoiser = self.pretrain(info, run) if self._pretrains else self._scratch(info, run)
        if releases:
            denoiser = model.given(denoiser, release_statistics(private, releases))
        training.train(model, denoiser, private, event, run)
        return model.sampler(info, denoiser)

    def restore(self, state: State, info: PrivateSetInfo, device: torch.device) -> Sampler:
        """Rebuild the denoiser."""
        model = self.model()
        return model.restored(info, model.blank(info), state)

    def pretrain(self, info: PrivateSetInfo, run: RunContext) -> Denoiser:
        """Train on public images, or load the weights that an equal training left.

        Classes are embedded anew where the public images have no labels that mean something, or
        not as many as the private ones: they are other classes then.

        Raises:
            UserError: The run has no public images.
        """
        source = run.public
        if source is None:
            raise UserError(
                f"public={self.public} needs public images, and this run has none: "
                f"--set public={NO_PUBLIC} trains from scratch"
            )
        classes = self._classes_of(source, info)
        model, training = self.public_model(), self.public_training()
        pretraining = run.pretraining(
            self._recipe(info, source, classes), f"public training on {source.name}"
        )
        public_info = replace(info, classes=classes)
        denoiser = model.denoiser(public_info, pretraining.streams, "denoiser").to(run.device)
        pretrain(
            model,
            denoiser,
            training,
            pretraining,
            source,
            count=self.public_images,
            classes=classes,
            labelled=source.classes is not None,
            progress=run.progress,
        )
        if self.statistics_share:
            return denoiser
        own = self._scratch(info, run)
        learned = denoiser.state_dict()
        if source.classes != info.classes:
            learned |= {
                name: state
                for name, state in own.state_dict().items()
                if name.startswith(STATE_OF_CLASSES)
            }
        own.load_state_dict(learned)
        return own

    @property
    def _pretrains(self) -> bool:
        return self.public != NO_PUBLIC

    def _classes_of(self, source: PublicSource, info: PrivateSetInfo) -> int:
        """The number of public classes: as many as asked of programs that tell them apart."""
        if self.public_classes and source.classes and self.public in entries("source"):
            return self.public_classes
        return source.classes or info.classes

    def _scratch(self, info: PrivateSetInfo, run: RunContext) -> Denoiser:
        return self.model().denoiser(info, run.streams, "denoiser").to(run.device)

    def _recipe(
        self, info: PrivateSetInfo, source: PublicSource, classes: int
    ) -> dict[str, object]:
        names = [name for name in self.__dataclass_fields__ if name.startswith("public_")]
        return public_recipe(
            self,
            replace(info, classes=classes),
            source,
            ("embedding", *names),
            method="dp-ddpm",
            labelled=source.classes is not None,
            statistics=bool(self.statistics_share),
        )


METHOD = DPDDPM
