"""A generator that is matched to noisy mean embeddings of the classes: DP-MERF and its kin.

The mean of an image's features over each class is released once; the generator is then trained so
that its own images have the same means, which is post-processing (Harder et al. 2021, arXiv
2002.11603).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 (its customary name)
from torch import Tensor, nn

from dpbench.api.method import Plan, PlannedStage, RunContext, Sampler
from dpbench.core.checks import check_positive
from dpbench.core.errors import UserError
from dpbench.core.images import Images, ImageSpec
from dpbench.core.pixels import to_pixels
from dpbench.core.state import State
from dpbench.core.streams import Streams, initialised
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.events import Event, GaussianEvent
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo, by_class
from dpbench.privacy.throughput import examples_per_second
from dpbench.training.loop import Stateful

# From images (N, C, H, W), intensities in [0, 1], to rows (N, D) of norm 1.
Embedding = Callable[[Tensor], Tensor]
_STAGE = "matching the embedding"


class ClassGenerator(nn.Module, ABC):
    """Maps codes and classes to images.

    In evaluation mode an image does not depend on the others of its batch.

    Args:
        classes: Number of classes.
        code_size: Length of a code.
    """

    layers: nn.Module

    def __init__(self, classes: int, code_size: int) -> None:
        """Keep the sizes; subclasses add ``layers``."""
        super().__init__()
        self.classes, self.code_size = classes, code_size

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

    generator: ClassGenerator

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


def fourier_features(rows: Tensor, frequencies: Tensor) -> Tensor:
    """Compute random Fourier features; the norm of each row is 1.

    Args:
        rows: ``(N, M)``.
        frequencies: ``(D / 2, M)``.

    Returns:
        ``(N, D)``: ``sqrt(2 / D) [cos(x W'), sin(x W')]``.
    """
    phases = rows @ frequencies.T
    return torch.cat([phases.cos(), phases.sin()], dim=1) / math.sqrt(len(frequencies))


@dataclass(frozen=True)
class Matching(ABC):
    """How a generator is matched to mean embeddings.

    Attributes:
        features: D, the number of features of an image, cosines and sines together.
        code_size: Length of the random code of an image.
        generator_steps: Optimizer steps.
        generator_batch_size: Images generated in a step.
        learning_rate: Adam's.
    """

    private: ClassVar[bool] = True

    features: int
    code_size: int
    generator_steps: int
    generator_batch_size: int
    learning_rate: float

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
        check_positive(self, "learning_rate")

    @abstractmethod
    def events(self, info: PrivateSetInfo, budget: PrivacyBudget) -> tuple[Event, ...]:
        """The releases, calibrated to the budget."""

    @abstractmethod
    def embedding(self, spec: ImageSpec, streams: Streams, device: torch.device) -> Embedding:
        """The features whose means are matched, for images on ``device``."""

    @abstractmethod
    def release(self, private: PrivateImages, embedding: Embedding) -> Tensor:
        """Spend the events, and return the embeddings to match, ``(classes, D)``, float32."""

    @abstractmethod
    def network(self, spec: ImageSpec, classes: int) -> ClassGenerator:
        """Build the generator, with initial weights from torch's global generator."""

    @abstractmethod
    def schedule(
        self, optimizer: torch.optim.Optimizer, info: PrivateSetInfo
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The schedule of the learning rate, which moves after every step."""

    @abstractmethod
    def labels(self, count: int, classes: int, rng: torch.Generator) -> Tensor:
        """The classes of the images that a step generates: ``(count,)``, int64."""

    @abstractmethod
    def mismatch(self, rows: Tensor, labels: Tensor, target: Tensor) -> Tensor:
        """How far the features of generated images are from what was released.

        Args:
            rows: ``(N, D)``, the features, each of norm 1.
            labels: ``(N,)``, the classes.
            target: ``(classes, D)``, what ``release`` returns.
        """

    def summed(self, private: PrivateImages, embedding: Embedding, event: GaussianEvent) -> Tensor:
        """Release the sums of the classes' features: ``(classes, D)``, float64."""
        classes = private.info.classes

        def features(images: Images) -> Tensor:
            return by_class(embedding(images.pixels.float() / 255), images.labels, classes)

        return private.gaussian_sum(features, event).view(classes, self.features)

    def loss(
        self,
        generator: ClassGenerator,
        target: Tensor,
        embedding: Embedding,
        count: int,
        rng: torch.Generator,
    ) -> Tensor:
        """The mismatch of ``count`` images that are generated for it."""
        labels = self.labels(count, generator.classes, rng)
        codes = torch.randn((count, generator.code_size), generator=rng, device=rng.device)
        return self.mismatch(embedding(generator(codes, labels)), labels, target)

    def plan(self, info: PrivateSetInfo, budget: PrivacyBudget) -> Plan:
        """Releases, then a generator trained to match them, without images."""
        with torch.device("meta"):
            generator = self.network(info.spec, info.classes)
        stage = PlannedStage(
            _STAGE,
            self.generator_steps,
            self.generator_steps * self.generator_batch_size,
            private=False,
            probe=lambda device: self._speed(info, device),
        )
        return Plan(
            stages=(stage,),
            events=self.events(info, budget),
            parameters=sum(parameter.numel() for parameter in generator.parameters()),
        )

    def fit(self, private: PrivateImages, run: RunContext) -> Sampler:
        """Release the mean embeddings and match them."""
        info = private.info
        cpu = torch.device("cpu")  # where the private images are
        target = self.release(private, self.embedding(info.spec, run.streams, cpu))
        generator = self._generator(info, run.streams).to(run.device)
        target = target.to(run.device)
        embedding = self.embedding(info.spec, run.streams, run.device)
        optimizer = torch.optim.Adam(generator.parameters(), lr=self.learning_rate)
        schedule = self.schedule(optimizer, info)
        state: dict[str, Stateful] = {
            "generator": generator,
            "optimizer": optimizer,
            "schedule": schedule,
        }
        stage = run.stage("generator", _STAGE)
        for step in stage.steps(self.generator_steps, state, per_step=self.generator_batch_size):
            rng = run.streams.public("public-data", "codes", step, device=run.device)
            optimizer.zero_grad()
            loss = self.loss(generator, target, embedding, self.generator_batch_size, rng)
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
        return GeneratorSampler(generator.eval())

    def restore(self, state: State, info: PrivateSetInfo, device: torch.device) -> Sampler:
        """Rebuild the generator."""
        generator = self._generator(info, Streams(0))
        generator.load_state_dict(state)
        return GeneratorSampler(generator.eval())

    def _generator(self, info: PrivateSetInfo, streams: Streams) -> ClassGenerator:
        seed = streams.seed("initial", "generator")
        return initialised(self.network, info.spec, info.classes, seed=seed)

    def _speed(self, info: PrivateSetInfo, device: torch.device) -> float:
        """Measure gradient evaluations per second, with a target of 0."""
        generator = self._generator(info, Streams(0)).to(device)
        embedding = self.embedding(info.spec, Streams(0), device)
        target = torch.zeros(info.classes, self.features, device=device)
        rng = torch.Generator(device).manual_seed(0)

        def step(count: int) -> None:
            loss = self.loss(generator, target, embedding, count, rng)
            torch.autograd.backward(loss)
            loss.item()  # waits for the device

        return examples_per_second(step, self.generator_batch_size)
