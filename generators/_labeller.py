"""A linear classifier of scattering coefficients, trained privately, that labels generated images.

Tramèr and Boneh 2021 (arXiv 2011.11660) find that linear classifiers of scattering coefficients
outdo networks trained with DP-SGD from scratch. Labelling what a generator draws is post-processing
of the classifier and of the generator.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (its customary name)
from torch import Tensor, nn

from dpbench.api.method import Sampler
from dpbench.core.images import ImageSpec
from dpbench.core.state import State
from dpbench.privacy.clipping import Predict, as_rows, of_examples

from ._scattering import coefficients, count_coefficients, morlet_filters

# Principal axes of the coefficients that are used, at most.
_AXES = 400
# Coordinates are divided by their standard deviations to this power, twice: between as they are,
# where the largest drown the rest, and white, where the smallest are noise.
_POWER = 0.25
# Added to the variances along the axes, as a share of their mean.
_LEAST_VARIANCE = 0.1
# The constant beside coordinates of norm 1, whose weights are the biases.
_CONSTANT = 0.3
_NEGLIGIBLE = 1e-12
_IMAGES_AT_ONCE = 1000
# How often images are drawn for the labels that lack one.
_ROUNDS = 20


class Labeller(nn.Module):
    """Linear logits of an image's scattering coefficients, along scaled principal axes.

    Args:
        spec: The shape of one image.
        classes: Number of classes.
    """

    centre: Tensor
    axes: Tensor

    def __init__(self, spec: ImageSpec, classes: int) -> None:
        """Start with equal logits; ``scale_by`` must follow, or a state be loaded."""
        super().__init__()
        count = count_coefficients(spec)
        self.register_buffer("centre", torch.zeros(count))
        self.register_buffer("axes", torch.eye(count, min(_AXES, count)))
        self.logits = nn.Linear(self.axes.shape[1] + 1, classes, bias=False)
        nn.init.zeros_(self.logits.weight)

    def scale_by(self, images: Tensor) -> None:
        """Take location, axes and scales of the coefficients from images that are not private.

        Args:
            images: ``(N, C, H, W)``, uint8; more than there are axes.
        """
        found = _coefficients(images.to(self.centre.device)).double()
        centred = found - found.mean(0)
        _, lengths, rows = torch.linalg.svd(centred, full_matrices=False)
        variances = (lengths**2 / len(found))[: self.axes.shape[1]]
        axes = rows[: len(variances)].T
        # the sign of an axis is open, but must not depend on the machine
        axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
        axes = axes * (variances + _LEAST_VARIANCE * variances.mean() + _NEGLIGIBLE) ** -_POWER
        self.centre.copy_(found.mean(0))
        self.axes.copy_(axes / (centred @ axes).norm(dim=1).median().clamp(min=_NEGLIGIBLE))

    def rows(self, images: Tensor) -> Tensor:
        """What the logits are linear in: coordinates, of norm at most 1, and a constant.

        Args:
            images: ``(N, C, H, W)``, uint8.

        Returns:
            ``(N, A + 1)``, float32, for A axes.
        """
        along = (_coefficients(images) - self.centre) @ self.axes
        along = along / along.norm(dim=1, keepdim=True).clamp(min=1)
        return torch.cat([along, along.new_full((len(along), 1), _CONSTANT)], dim=1)

    def forward(self, rows: Tensor) -> Tensor:
        """Logits of ``rows``: ``(N, classes)``."""
        logits: Tensor = self.logits(rows)
        return logits

    @torch.no_grad()
    def classify(self, images: Tensor) -> Tensor:
        """The most probable class of each image: ``(N,)``, int64."""
        parts = torch.split(images.to(self.centre.device), _IMAGES_AT_ONCE)
        return torch.cat([self(self.rows(part)).argmax(1) for part in parts])


@dataclass(frozen=True)
class LabellerObjective:
    """Cross-entropy of a labeller's logits, for private training.

    Attributes:
        labeller: Gives the rows of the images, and is what is trained.
    """

    labeller: Labeller
    multiplicity: int = 1

    def draw(self, pixels: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, ...]:
        """Return rows ``(B, 1, A + 1)`` and labels ``(B, 1)``; nothing is random."""
        with torch.no_grad():
            return self.labeller.rows(pixels)[:, None], labels[:, None]

    def loss(self, predict: Predict, *copies: Tensor) -> Tensor:
        """Return the loss of each image, ``(B,)``."""
        rows, labels = copies
        losses = F.cross_entropy(predict(as_rows(rows)), as_rows(labels), reduction="none")
        return of_examples(losses, len(labels)).mean(dim=1)


@dataclass(frozen=True)
class LabelledSampler:
    """Draws images from a generator, of the classes that a labeller sees in them.

    Attributes:
        generator: Draws images of given classes, more or less.
        labeller: Says of which class an image is.
    """

    generator: Sampler
    labeller: Labeller

    def sample(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Draw one image for each label, as ``Sampler``.

        What the generator draws for one class and the labeller takes for another serves the other,
        if that still lacks images. Of a class that the labeller never sees, the generator's images
        are taken as they are.
        """
        self.labeller.to(rng.device)
        images = self.generator.sample(labels, rng)
        waiting = self._place(images, images.clone(), torch.arange(len(labels)), labels)
        for _ in range(_ROUNDS):
            if not len(waiting):
                break
            drawn = self.generator.sample(labels[waiting], rng)
            waiting = self._place(images, drawn, waiting, labels)
        return images

    def _place(self, images: Tensor, drawn: Tensor, waiting: Tensor, labels: Tensor) -> Tensor:
        """Write images to the places that wait for their class, and return what still waits."""
        seen = self.labeller.classify(drawn).cpu()
        still = [waiting[:0]]
        for label in torch.unique(labels[waiting]):
            places = waiting[labels[waiting] == label]
            found = drawn[seen == label][: len(places)]
            images[places[: len(found)]] = found
            still.append(places[len(found) :])
        return torch.cat(still)

    def state(self) -> State:
        """The generator's state and the labeller's."""
        return {"generator": self.generator.state(), "labeller": self.labeller.state_dict()}


def _coefficients(images: Tensor) -> Tensor:
    return coefficients(images.float() / 255, morlet_filters().to(images.device))
