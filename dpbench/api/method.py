"""What a method is, and what it gets."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from dpbench.api.profiles import Profile
from dpbench.api.sources import NO_PUBLIC, PublicSource
from dpbench.core.files import cache_path
from dpbench.core.images import ImageSpec, Precision
from dpbench.core.progress import Progress
from dpbench.core.state import State
from dpbench.core.streams import Streams
from dpbench.parallel.ranks import ALONE, Ranks
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.clipping import Objective
from dpbench.privacy.events import Event
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo
from dpbench.training.evaluations import GradientEvaluations
from dpbench.training.loop import Stage
from dpbench.training.pretraining import Pretraining


@dataclass(frozen=True)
class PlannedStage:
    """A stage of training, as planned.

    Attributes:
        name: Name in the printed plan.
        steps: Number of optimizer steps.
        evaluations: Gradient evaluations (images x copies), expected over Poisson sampling.
        private: Whether the stage trains on private images.
        probe: Runs one step of the stage on random tensors on a device and returns evaluations per
            second; None if the stage is too short to matter.
    """

    name: str
    steps: int
    evaluations: int
    private: bool
    probe: Callable[[torch.device], float] | None = None


@dataclass(frozen=True)
class Plan:
    """What a method will do and spend, known before it sees a private image.

    Attributes:
        stages: Stages of training, in order.
        events: Every privacy event the method will spend, in order.
        parameters: Number of trainable parameters of the largest network.
        public: Name of the public images that the method trains on.
        sampling: Draws images from random weights on a device and returns images per second; None
            if the method draws none, or draws them in no time.
    """

    stages: tuple[PlannedStage, ...] = ()
    events: tuple[Event, ...] = ()
    parameters: int = 0
    public: str = NO_PUBLIC
    sampling: Callable[[torch.device], float] | None = None

    def evaluations(self, private: bool) -> int:
        """Sum of the gradient evaluations of all private, or of all public, stages."""
        return sum(stage.evaluations for stage in self.stages if stage.private is private)


@dataclass(frozen=True)
class RunContext:
    """What the harness gives a method besides the private images.

    Attributes:
        profile: Profile of the run.
        device: Device to compute on.
        streams: Named random streams.
        progress: Receives progress updates.
        folder: Folder for training state between interruptions; never released.
        ranks: Processes of the run. All execute ``fit`` in step; private gradient sums are divided
            among them, and the sampler of the first one is kept.
        public: The images that the plan names as ``public``, or None.
        pretrained: Called with a description of the public weights that were loaded or made.
        cache: Folder that keeps these weights for other runs.
        evaluations: Counts gradient evaluations against the plan.
        owner: What tells the training state of this run from that of others.
    """

    profile: Profile
    device: torch.device
    streams: Streams
    progress: Progress
    folder: Path
    ranks: Ranks = ALONE
    public: PublicSource | None = None
    pretrained: Callable[[dict[str, Any]], None] = lambda what: None
    cache: Path = field(default_factory=cache_path)
    evaluations: GradientEvaluations = field(default_factory=GradientEvaluations)
    owner: str = ""

    def stage(self, name: str, label: str) -> Stage:
        """Return a resumable loop that keeps its state under ``name``."""
        file = self.folder / f"{name}.stage"
        return Stage(label, file, self.progress, self.ranks, self.evaluations, self.owner)

    def pretraining(self, recipe: Mapping[str, object], label: str) -> Pretraining:
        """Return public training whose weights are kept for runs of this recipe and seed.

        Use it like this::

            pretraining = run.pretraining(recipe, "public training")
            if not pretraining.load(model):
                ...  # train in pretraining.stage, with pretraining.streams
                pretraining.save(model)
        """
        folder = self.cache / "pretrained"
        return Pretraining(
            recipe,
            self.streams,
            label,
            folder,
            self.progress,
            self.ranks,
            self.pretrained,
            self.evaluations,
        )


@runtime_checkable
class Sampler(Protocol):
    """Draws images. It is post-processing: it has seen private data through mechanisms only.

    What has ``sample`` is a sampler, whatever else it has. A run stores its ``state`` and draws
    from what the method's ``restore`` makes of that.
    """

    def sample(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Draw one image for each label.

        Args:
            labels: ``(N,)``, int64, in [0, classes).
            rng: Source of all randomness, on the device to compute on.

        Returns:
            ``(N, C, H, W)``, uint8, on the CPU.
        """

    def state(self) -> State:
        """What was learned: tensors, plain values, and dicts and lists of them, by name."""


def uniform_labels(count: int, classes: int) -> Tensor:
    """Labels to sample, ``(count,)`` int64: classes in turn, since their true sizes are private."""
    return torch.arange(count) % classes


class Predictor(Protocol):
    """Classifies images: the result of a method that learns a classifier instead of a sampler.

    Like a ``Sampler``, it has seen private data through mechanisms only.
    """

    def predict(self, images: Tensor) -> Tensor:
        """Classify images.

        Args:
            images: ``(N, C, H, W)``, uint8, on the CPU.

        Returns:
            ``(N, classes)``, float32 logits, on the CPU.
        """

    def state(self) -> State:
        """What was learned, as that of a ``Sampler``."""


@dataclass(frozen=True)
class Preset:
    """Values of a method's fields for a profile, and where they come from.

    Attributes:
        profile: The profile's name.
        source: Paper and table, or how the values were found.
        values: Field name to value; fields not named keep their defaults.
        datasets: Names of data sets it holds for; empty for any.
        epsilons: Half-open interval ``(low, high]`` of epsilon it holds for.
    """

    profile: str
    source: str
    values: Mapping[str, Any] = field(default_factory=dict)
    datasets: tuple[str, ...] = ()
    epsilons: tuple[float, float] = (0.0, math.inf)

    def fits(self, profile: str, dataset: str, epsilon: float) -> bool:
        """Whether the preset holds for this run."""
        low, high = self.epsilons
        return (
            profile == self.profile
            and (not self.datasets or dataset in self.datasets)
            and low < epsilon <= high
        )


@dataclass(frozen=True)
class Departure:
    """An ingredient of ours in a published method, by the hyper-parameter that brings it in.

    Departures in size, such as a smaller network or fewer steps, are none.

    Attributes:
        what: The ingredient; several hyper-parameters may belong to one.
        field: Name of the hyper-parameter.
        published: The value that ``--published`` puts in its place.
        ours: Whether a value brings the ingredient in.
    """

    what: str
    field: str
    published: Any
    ours: Callable[[Any], bool]


@dataclass(frozen=True)
class Workload:
    """A network with its loss, to be timed on random images.

    Attributes:
        name: What ``dpbench bench --network`` calls it.
        summary: One-line description.
        spec: The shape of its images.
        classes: Number of classes.
        build: From the multiplicity K and the precision to the model, on the CPU, and its
            objective.
        samplers: By the solver's name, from such a model to what draws images with it.
        quick: Whether a CPU gets through it in a minute; others are timed on demand only.
    """

    name: str
    summary: str
    spec: ImageSpec
    classes: int
    build: Callable[[int, Precision], tuple[nn.Module, Objective]]
    samplers: Mapping[str, Callable[[nn.Module], Sampler]] = field(default_factory=dict)
    quick: bool = True


class Method(Protocol):
    """A method: a frozen dataclass whose fields are its hyper-parameters.

    Attributes:
        summary: One-line description.
        private: False for reference points that need the images themselves (epsilon = inf).
        presets: The first one that fits a run gives the values of its fields.

    A built-in one also has a ``version``, raised when its results change at the same settings: they
    are another method's then, and are not pooled with earlier ones.

    A published method with ingredients of ours lists them as ``departures``, a tuple of
    ``Departure``.

    A method may say whose it is, ``paper``, and what it needs beside private images, ``requires``.
    A baseline that others are to be read against says so in ``reference``: ``ceiling`` or
    ``floor``. Like ``summary``, these are read without importing the method, if they are literals
    of a ``ClassVar[str]``.

    A method may also have ``workloads``, a tuple of ``Workload``: its networks, for
    ``dpbench bench``; and a hyper-parameter ``public``, the name of public images, with
    ``pretrain(info: PrivateSetInfo, run: RunContext)``, its public training alone, for
    ``dpbench pretrain``.
    """

    summary: ClassVar[str]
    private: ClassVar[bool]
    presets: ClassVar[tuple[Preset, ...]]

    def plan(self, info: PrivateSetInfo, budget: PrivacyBudget) -> Plan:
        """What ``fit`` will do and spend.

        Raises:
            UserError: The hyper-parameters do not fit the images or the budget.
        """

    def fit(self, private: PrivateImages, run: RunContext) -> Sampler | Predictor:
        """Learn a sampler, or a classifier, from private images through their mechanisms."""

    def restore(
        self, state: State, info: PrivateSetInfo, device: torch.device
    ) -> Sampler | Predictor:
        """Rebuild what ``fit`` returned; a run draws or predicts with what this returns.

        Args:
            state: What its ``state`` gave, on the CPU.
            info: What ``fit`` got as ``private.info``.
            device: Device to compute on; samplers also get it by their ``rng``.
        """
