"""DP-MERF: one noisy mean embedding, and a generator to match it (Harder et al. 2021).

"DP-MERF: Differentially Private Mean Embeddings with Random Features", arXiv 2002.11603, with the
values of its published code (``code_balanced`` of ParkLabML/DP-MERF). The mean of the images'
random Fourier features of each class is released once; everything else is post-processing.

Departures: the code's noise is that of replace-one adjacency (sensitivity 2 / N), here it follows
the budget; images of sizes other than 28 x 28 are generated from a quarter of their own height and
width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 (its customary name)
from torch import Tensor, nn

from dpbench.api.method import Plan, PlannedStage, Preset, RunContext, Sampler
from dpbench.core.checks import check_positive
from dpbench.core.errors import UserError
from dpbench.core.images import Images, ImageSpec
from dpbench.core.pixels import to_pixels
from dpbench.core.state import State
from dpbench.core.streams import Streams, initialised
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.calibration import calibrated
from dpbench.privacy.events import GaussianEvent
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo, by_class
from dpbench.privacy.throughput import examples_per_second
from dpbench.training.loop import Stateful

HIDDEN = 200
CHANNELS = (16, 8)
KERNEL = 5

_CODE = "Harder et al. 2021, code_balanced/mnist_sr_gen.py; 5 epochs of 60000 images"
_LAPTOP = (
    "as published, but 4 epochs instead of 5, to keep within the profile's compute, and a tenth of "
    "the features"
)
_SMALL = {"features": 1000, "generator_steps": 2400}
_STAGE = "matching the embedding"


class ConvCondGen(nn.Module):
    """Maps codes and classes to images: the generator of that name in the published code.

    In evaluation mode an image does not depend on the others of its batch.

    Args:
        spec: The shape of one image.
        classes: Number of classes.
        code_size: Length of a code.
    """

    def __init__(self, spec: ImageSpec, classes: int, code_size: int) -> None:
        """Draw the initial weights."""
        super().__init__()
        self.classes, self.code_size = classes, code_size
        half, quarter = (
            (math.ceil(spec.height / part), math.ceil(spec.width / part)) for part in (2, 4)
        )
        first, second = CHANNELS
        size = first * math.prod(quarter)
        self.layers = nn.Sequential(
            nn.Linear(code_size + classes, HIDDEN),
            nn.BatchNorm1d(HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, size),
            nn.BatchNorm1d(size),
            nn.ReLU(),
            nn.Unflatten(1, (first, *quarter)),
            nn.Upsample(half, mode="bilinear", align_corners=True),
            nn.Conv2d(first, second, KERNEL, padding=KERNEL // 2),
            nn.ReLU(),
            nn.Upsample((spec.height, spec.width), mode="bilinear", align_corners=True),
            nn.Conv2d(second, spec.channels, KERNEL, padding=KERNEL // 2),
            nn.Sigmoid(),
        )

    def forward(self, codes: Tensor, labels: Tensor) -> Tensor:
        """Generate images.

        Args:
            codes: ``(N, code_size)``, standard normal.
            labels: ``(N,)``, int64.

        Returns:
            ``(N, C, H, W)``, intensities in [0, 1].
        """
        images: Tensor = self.layers(torch.cat([codes, F.one_hot(labels, self.classes)], dim=1))
        return images


@dataclass(frozen=True)
class GeneratorSampler:
    """Draws images from a trained generator.

    Attributes:
        generator: The generator, in evaluation mode.
    """

    generator: ConvCondGen

    @torch.no_grad()
    def sample(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Draw one image for each label, as ``Sampler``."""
        generator = self.generator.to(rng.device)
        shape = (len(labels), generator.code_size)
        codes = torch.randn(shape, generator=rng, device=rng.device)
        return to_pixels(2 * generator(codes, labels.to(rng.device)) - 1).cpu()

    def state(self) -> State:
        """The generator's weights and running statistics."""
        return self.generator.state_dict()


def fourier_features(images: Tensor, frequencies: Tensor) -> Tensor:
    """Compute random Fourier features of a Gaussian kernel; the norm of each row is 1.

    Args:
        images: ``(N, C, H, W)``, intensities in [0, 1].
        frequencies: ``(D / 2, C * H * W)``.

    Returns:
        ``(N, D)``: ``sqrt(2 / D) [cos(x W'), sin(x W')]``.
    """
    phases = images.flatten(1) @ frequencies.T
    return torch.cat([phases.cos(), phases.sin()], dim=1) / math.sqrt(len(frequencies))


@dataclass(frozen=True)
class DPMERF:
    """DP-MERF; defaults are those of the published code.

    The published kernel variances, 105 for MNIST and 127 for Fashion-MNIST, are squares of the
    median distance between images of the data set itself, which was not accounted for.

    Attributes:
        features: D, the number of cosines and sines together.
        kernel_variance: Variance of the Gaussian kernel per value of an image: frequencies are
            standard normal over the square root of this times ``C * H * W``.
        code_size: Length of the random code of an image.
        generator_steps: Optimizer steps.
        generator_batch_size: Images generated in a step.
        learning_rate: Adam's initial learning rate.
        learning_rate_decay: Factor of the learning rate after every N generated images.
    """

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "a generator matched to one noisy mean of random Fourier features"
    private: ClassVar[bool] = True
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset("paper", _CODE, {"kernel_variance": 105 / 784}, datasets=("mnist",)),
        Preset("paper", _CODE),
        Preset("laptop", _LAPTOP, {"kernel_variance": 105 / 784, **_SMALL}, datasets=("mnist",)),
        Preset("laptop", _LAPTOP, _SMALL),
        Preset(
            "smoke",
            "the smallest that runs",
            {"features": 200, "generator_steps": 20, "generator_batch_size": 50},
        ),
    )

    features: int = 10_000
    kernel_variance: float = 127 / 784
    code_size: int = 5
    generator_steps: int = 3000
    generator_batch_size: int = 100
    learning_rate: float = 0.01
    learning_rate_decay: float = 0.9

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UserError: A value is out of its range.
        """
        if self.features < 2 or self.features % 2:
            raise UserError(f"features must be even and at least 2, got {self.features}")
        # batch normalisation has no variance to divide by in a batch of one
        for name, least in (("code_size", 1), ("generator_steps", 1), ("generator_batch_size", 2)):
            if getattr(self, name) < least:
                raise UserError(f"{name} must be at least {least}, got {getattr(self, name)}")
        check_positive(self, "kernel_variance", "learning_rate", "learning_rate_decay")

    def plan(self, info: PrivateSetInfo, budget: PrivacyBudget) -> Plan:
        """One release, then a generator trained to match it, without images."""
        images = self.generator_steps * self.generator_batch_size
        with torch.device("meta"):
            generator = ConvCondGen(info.spec, info.classes, self.code_size)
        return Plan(
            stages=(
                PlannedStage(
                    _STAGE,
                    self.generator_steps,
                    images,
                    private=False,
                    probe=lambda device: self._speed(info, device),
                ),
            ),
            events=(self._event(budget),),
            parameters=sum(p.numel() for p in generator.parameters()),
        )

    def _event(self, budget: PrivacyBudget) -> GaussianEvent:
        # features have norm 1, so clipping at 1 changes nothing
        return calibrated(GaussianEvent(1.0, 1.0, "mean embedding"), budget)

    def fit(self, private: PrivateImages, run: RunContext) -> Sampler:
        """Release the mean embedding and match it."""
        info = private.info
        frequencies = self._frequencies(info.spec, run.streams)

        def features(images: Images) -> Tensor:
            rows = fourier_features(images.pixels.float() / 255, frequencies)
            return by_class(rows, images.labels, info.classes)

        total = private.gaussian_sum(features, self._event(private.budget))
        # the true number of images is private
        target = (total / info.nominal_size).float().view(info.classes, self.features)
        return GeneratorSampler(self._matched(info, target, frequencies, run))

    def restore(self, state: State, info: PrivateSetInfo, device: torch.device) -> Sampler:
        """Rebuild the generator."""
        generator = initialised(ConvCondGen, info.spec, info.classes, self.code_size, seed=0)
        generator.load_state_dict(state)
        return GeneratorSampler(generator.eval())

    def _frequencies(self, spec: ImageSpec, streams: Streams) -> Tensor:
        values = math.prod(spec.shape)
        rng = streams.public("initial", "frequencies")
        normal = torch.randn(self.features // 2, values, generator=rng)
        return normal / math.sqrt(self.kernel_variance * values)

    def _generator(self, info: PrivateSetInfo, streams: Streams) -> ConvCondGen:
        seed = streams.seed("initial", "generator")
        return initialised(ConvCondGen, info.spec, info.classes, self.code_size, seed=seed)

    def _matched(
        self, info: PrivateSetInfo, target: Tensor, frequencies: Tensor, run: RunContext
    ) -> ConvCondGen:
        """Train a generator of images whose mean embedding is near ``target``, ``(classes, D)``."""
        generator = self._generator(info, run.streams).to(run.device)
        target, frequencies = target.to(run.device), frequencies.to(run.device)
        optimizer = torch.optim.Adam(generator.parameters(), lr=self.learning_rate)
        count = self.generator_batch_size
        epoch = max(1, info.nominal_size // count)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, epoch, self.learning_rate_decay)
        state: dict[str, Stateful] = {
            "generator": generator,
            "optimizer": optimizer,
            "schedule": schedule,
        }
        stage = run.stage("generator", _STAGE)
        for step in stage.steps(self.generator_steps, state, per_step=count):
            rng = run.streams.public("public-data", "codes", step, device=run.device)
            optimizer.zero_grad()
            torch.autograd.backward(_mismatch(generator, target, frequencies, count, rng))
            optimizer.step()
            schedule.step()
        return generator.eval()

    def _speed(self, info: PrivateSetInfo, device: torch.device) -> float:
        """Measure gradient evaluations per second, with a target of 0."""
        generator = self._generator(info, Streams(0)).to(device)
        frequencies = self._frequencies(info.spec, Streams(0)).to(device)
        target = torch.zeros(info.classes, self.features, device=device)
        rng = torch.Generator(device).manual_seed(0)

        def step(count: int) -> None:
            mismatch = _mismatch(generator, target, frequencies, count, rng)
            torch.autograd.backward(mismatch)
            mismatch.item()  # waits for the device

        return examples_per_second(step, self.generator_batch_size)


def _mismatch(
    generator: ConvCondGen, target: Tensor, frequencies: Tensor, count: int, rng: torch.Generator
) -> Tensor:
    """Return the squared distance of ``target`` to the mean embedding of ``count`` images."""
    labels = torch.randint(generator.classes, (count,), generator=rng, device=rng.device)
    codes = torch.randn((count, generator.code_size), generator=rng, device=rng.device)
    rows = fourier_features(generator(codes, labels), frequencies)
    mean = F.one_hot(labels, generator.classes).float().T @ rows / count
    return (mean - target).square().sum()


METHOD = DPMERF
