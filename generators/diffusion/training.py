"""How a denoiser is trained: privately with DP-SGD, or on public images by plain steps."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpbench.api.method import PlannedStage, RunContext
from dpbench.api.sources import PublicSource
from dpbench.core.checks import check_counts, check_positive
from dpbench.core.images import Images
from dpbench.core.progress import Progress
from dpbench.core.streams import Streams
from dpbench.parallel.cores import map_on_cores
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.clipping import Objective, trainable
from dpbench.privacy.events import DPSGDEvent, Event
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo
from dpbench.privacy.throughput import blank_images, examples_per_second, private_speed
from dpbench.training.loop import Stage, Stateful

from .denoiser import Denoiser
from .model import DiffusionModel
from .preconditioning import EVERYWHERE, Interval

PIECES = 2
_PRIVATE = "private training"


@dataclass(frozen=True)
class PrivateTraining:
    """DP-SGD on a denoiser.

    Attributes:
        batch_size: Expected size of a Poisson batch, images.
        steps: DP-SGD steps.
        multiplicity: K, noise levels for each image of a batch.
        learning_rate: Adam's.
        clipping_norm: C.
    """

    batch_size: int
    steps: int
    multiplicity: int
    learning_rate: float
    clipping_norm: float

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UserError: A value is out of its range.
        """
        check_counts(self, "batch_size", "steps", "multiplicity")
        check_positive(self, "learning_rate", "clipping_norm")

    def event(
        self, info: PrivateSetInfo, budget: PrivacyBudget, others: tuple[Event, ...] = ()
    ) -> DPSGDEvent:
        """The event, calibrated to what the other events leave of the budget."""
        return info.training(
            budget,
            batch_size=self.batch_size,
            steps=self.steps,
            clipping_norm=self.clipping_norm,
            purpose="denoiser weights",
            others=others,
        )

    def stage(self, model: DiffusionModel, info: PrivateSetInfo) -> PlannedStage:
        """The stage as planned."""

        def probe(device: torch.device) -> float:
            denoiser = model.denoiser(info, Streams(0), "probe").to(device)
            # more copies would take a large network minutes, and are at most a quarter faster each
            objective = model.objective(info.classes, multiplicity=1)
            return private_speed(denoiser, objective, info, self.clipping_norm)

        evaluations = self.steps * self.batch_size * self.multiplicity
        return PlannedStage(_PRIVATE, self.steps, evaluations, private=True, probe=probe)

    def train(
        self,
        model: DiffusionModel,
        denoiser: Denoiser,
        private: PrivateImages,
        event: DPSGDEvent,
        run: RunContext,
        interval: Interval = EVERYWHERE,
    ) -> None:
        """Spend the event, and leave the averaged weights in ``denoiser``."""
        learner = model.learner(denoiser, self.learning_rate)
        objective = model.objective(private.info.classes, self.multiplicity, interval)
        private.dp_sgd(learner, objective, event, run.stage("private", _PRIVATE))
        learner.average.copy_to(denoiser)


@dataclass(frozen=True)
class PublicTraining:
    """Plain optimizer steps on a denoiser.

    Attributes:
        name: Names the random streams.
        label: Name of the stage in progress and plan.
        steps: Optimizer steps.
        batch_size: Images in a step, drawn with replacement.
        multiplicity: Noise levels for each of them.
        learning_rate: Adam's, after the warm-up.
        warmup_steps: Steps in which the learning rates rise from 0.
    """

    name: str
    label: str
    steps: int
    batch_size: int
    multiplicity: int
    learning_rate: float
    warmup_steps: int = 0

    def stage(
        self, model: DiffusionModel, info: PrivateSetInfo, private: bool = False
    ) -> PlannedStage:
        """The stage as planned; ``private`` where the images are private nevertheless."""

        def probe(device: torch.device) -> float:
            denoiser = model.denoiser(info, Streams(0), "probe").to(device)
            objective = model.objective(info.classes, multiplicity=1)
            return public_speed(denoiser, objective, info, self.batch_size)

        evaluations = self.steps * self.batch_size * self.multiplicity
        return PlannedStage(self.label, self.steps, evaluations, private=private, probe=probe)

    def train(
        self,
        model: DiffusionModel,
        denoiser: Denoiser,
        images: Callable[[], Images],
        streams: Streams,
        stage: Stage,
        classes: int,
        interval: Interval = EVERYWHERE,
    ) -> None:
        """Minimise the loss, and leave the averaged weights in ``denoiser``.

        Args:
            model: Gives the loss and the optimizer.
            denoiser: Trained in place.
            images: Gives the images; called only if there are steps to do, then once a step.
            streams: ``public-data`` and ``diffusion-noise`` are drawn from.
            stage: Resumes, reports and checkpoints.
            classes: Number of classes of the denoiser.
            interval: Range of ln sigma that is trained.
        """
        learner = model.learner(denoiser, self.learning_rate)
        objective = model.objective(classes, self.multiplicity, interval)
        optimizer, average = learner.optimizer, learner.average
        device = next(denoiser.parameters()).device
        state: dict[str, Stateful] = {
            "model": denoiser,
            "optimizer": optimizer,
            "average": average,
        }
        rates = [group["lr"] for group in optimizer.param_groups]  # before any are resumed
        for step in stage.steps(self.steps, state, per_step=self.batch_size * self.multiplicity):
            source = images()
            rng = streams.public("public-data", self.name, step)
            batch = source[torch.randint(len(source), (self.batch_size,), generator=rng)]
            rng = streams.public("diffusion-noise", self.name, step, device=device)
            copies = objective.draw(batch.pixels.to(device), batch.labels.to(device), rng)
            set_gradients(denoiser, objective, copies)
            if self.warmup_steps:
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * min(1.0, (step + 1) / self.warmup_steps)
            optimizer.step()
            average.update(denoiser)
        average.copy_to(denoiser)


def opened_once(
    source: PublicSource,
    count: int,
    classes: int,
    labelled: bool,
    streams: Streams,
    progress: Progress,
) -> Callable[[], Images]:
    """Public images for ``PublicTraining``: opened when the first step asks, never on a resume.

    Args:
        source: Source of the images.
        count: Number of images, at most.
        classes: Number of classes.
        labelled: Whether the source's labels are kept, rather than drawn uniformly at random.
        streams: ``public-data`` is drawn from.
        progress: Receives progress updates.
    """

    @functools.cache
    def images() -> Images:
        opened = source.images(count, progress, classes if labelled else None)
        if labelled:
            return opened
        rng = streams.public("public-data", "labels")
        return Images(opened.pixels, torch.randint(classes, (len(opened),), generator=rng))

    return images


def set_gradients(model: nn.Module, objective: Objective, copies: tuple[Tensor, ...]) -> None:
    """Set the gradients of the mean loss, computed in pieces on all cores.

    Args:
        model: What to differentiate.
        objective: Gives the loss of each example from its copies.
        copies: Tensors of shape ``(B, K, ...)``.
    """
    parameters = list(trainable(model).values())
    count, device = len(copies[0]), copies[0].device
    # the number of pieces is fixed, so that results do not depend on the machine's cores
    pieces = zip(*(torch.chunk(part, PIECES) for part in copies), strict=True)

    def gradients_of(piece: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(objective.loss(model, *piece).sum() / count, parameters)

    total = [torch.zeros_like(parameter) for parameter in parameters]
    for gradients in map_on_cores(gradients_of, pieces, device):
        torch._foreach_add_(total, gradients)
    for parameter, gradient in zip(parameters, total, strict=True):
        parameter.grad = gradient


def public_speed(
    model: nn.Module, objective: Objective, info: PrivateSetInfo, batch_size: int
) -> float:
    """Measure a public step's gradient evaluations per second, on black images.

    Args:
        model: On the device to compute on; its gradients are set.
        objective: Loss, with multiplicity 1.
        info: Gives the shape of the images.
        batch_size: Images in a step.
    """
    images = blank_images(info, batch_size)
    device = next(model.parameters()).device
    rng = torch.Generator(device).manual_seed(0)

    def step(copies: int) -> None:
        batch = images[:copies]
        drawn = objective.draw(batch.pixels.to(device), batch.labels.to(device), rng)
        set_gradients(model, objective, drawn)
        next(model.parameters()).sum().item()  # waits for the device

    return examples_per_second(step, len(images))


def public_recipe(
    method: object,
    info: PrivateSetInfo,
    source: PublicSource,
    names: Iterable[str],
    /,
    **others: object,
) -> dict[str, object]:
    """Everything that the weights of public training depend on, for ``RunContext.pretraining``.

    Args:
        method: Holds the hyper-parameters, and the version of its code.
        info: Shape and classes of the denoiser.
        source: Source of the images.
        names: Hyper-parameters besides those of ``RECIPE``.
        others: Values that are not hyper-parameters.
    """
    return {
        "images": source.identity,
        "shape": info.spec.shape,
        "classes": info.classes,
        **{name: getattr(method, name) for name in (*RECIPE, *names)},
        **others,
    }


# What the public weights of every diffusion method depend on: its code and its hyper-parameters.
RECIPE = (
    "version",
    "channels",
    "channel_mult",
    "blocks",
    "attention_resolutions",
    "patch",
    "precision",
    "average_decay",
    "centre_learning_rate",
    "centre_widths",
    "natural_spectrum",
)
