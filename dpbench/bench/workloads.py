"""The networks that are timed: those that the methods name, and a classifier of the field.

Only random images go through them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from dpbench.errors import UserError
from dpbench.pixels import from_pixels
from dpbench.privacy.clipping import Objective, Predict, as_rows, of_examples
from dpbench.protocols import Workload
from dpbench.registry import entries, load
from dpbench.run import resolve_device
from dpbench.types import Images, ImageSpec, Precision

PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class Classification:
    """Cross-entropy, averaged over K randomly mirrored copies (De et al. 2022, section 3.2).

    Attributes:
        multiplicity: K.
    """

    multiplicity: int

    def draw(self, pixels: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, ...]:
        """Images ``(B, K, C, H, W)`` and labels ``(B, K)``: see ``Objective``."""
        shape = (len(pixels), self.multiplicity)
        mirrored = torch.rand(shape, generator=rng, device=pixels.device) < 0.5
        images = from_pixels(pixels)[:, None]
        copies = torch.where(mirrored[:, :, None, None, None], images.flip(-1), images)
        return copies, labels[:, None].expand(shape)

    def loss(self, predict: Predict, *copies: Tensor) -> Tensor:
        """Mean loss of each image over its copies, ``(B,)``."""
        images, labels = copies
        logits = predict(as_rows(images))
        losses = functional.cross_entropy(logits, as_rows(labels), reduction="none")
        return of_examples(losses, len(labels)).mean(dim=1)


class _InBfloat16(nn.Module):
    """A model of images whose forward pass computes in bfloat16 and whose output is float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16):
            result: Tensor = self.model(images)
        return result.float()


def _classifier(multiplicity: int, precision: Precision) -> tuple[nn.Module, Objective]:
    """Papernot et al. 2021 (arXiv 2007.14191), table 1: the usual first network of DP-SGD."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model: nn.Module = nn.Sequential(
            nn.Conv2d(1, 16, 8, stride=2, padding=2),
            nn.Tanh(),
            nn.MaxPool2d(2, stride=1),
            nn.Conv2d(16, 32, 4, stride=2),
            nn.Tanh(),
            nn.MaxPool2d(2, stride=1),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, 32),
            nn.Tanh(),
            nn.Linear(32, 10),
        )
    if precision == "bfloat16":
        model = _InBfloat16(model)
    return model, Classification(multiplicity)


CLASSIFIER = Workload(
    "cnn",
    "a small classifier, 28x28 grey (Papernot et al. 2021, table 1)",
    ImageSpec(1, 28, 28),
    10,
    _classifier,
)


def workloads() -> dict[str, Workload]:
    """Every network by name: the classifier, and those of all methods that can be loaded."""
    found = {CLASSIFIER.name: CLASSIFIER}
    for name in entries("method"):
        try:
            offered = getattr(load("method", name), "workloads", ())
        except UserError:  # a broken plugin disables itself and nothing else
            continue
        for each in offered:
            found.setdefault(each.name, each)
    return found


def chosen(names: Sequence[str]) -> list[Workload]:
    """The networks of those names; the quick ones where none is given.

    Raises:
        UserError: There is no such network.
    """
    known = workloads()
    check("network", names, known)
    return [known[name] for name in names] or [each for each in known.values() if each.quick]


def chosen_precisions(names: Sequence[str]) -> list[Precision]:
    """The precisions of those names; all where none is given.

    Raises:
        UserError: There is no such precision.
    """
    check("precision", names, PRECISIONS)
    return [each for each in PRECISIONS if each in names or not names]


def check(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Hold that all names are known.

    Raises:
        UserError: One is not.
    """
    known = list(known)
    for name in names:
        if name not in known:
            raise UserError(f"unknown {what} {name!r}: choose one of {', '.join(known)}")


def device_of(name: str) -> torch.device:
    """The device of a name, computed on as in a run.

    Raises:
        UserError: There is no such device here.
    """
    device = resolve_device(name)
    if device.type == "cpu":
        torch.set_num_threads(1)  # cores are used by whole pieces of work: see dpbench.cores
    return device


def random_images(workload: Workload, count: int) -> Images:
    """``count`` images of noise."""
    rng = torch.Generator().manual_seed(0)
    shape = (count, *workload.spec.shape)
    return Images(
        torch.randint(256, shape, generator=rng, dtype=torch.uint8),
        torch.arange(count) % workload.classes,
    )
