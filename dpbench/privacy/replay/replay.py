"""Neighbour replay: a method is run on D, then on a neighbour D' with D's transcript held fixed.

The inequality under a privacy claim is about neighbours: each release may differ by at most its
declared sensitivity when one image is added or removed, and nothing else may differ at all. Here
both are measured, on a few neighbours, with the noise off and through the real mechanisms:

- An image has the same Poisson draws, and the same draws of its copies, in both sets, whoever else
  is there. The images that make the difference are in every batch: a possible course of events.
- After a release on D' was compared with D's, D's takes its place, so that D' goes on from the
  same weights. Whatever differs nevertheless did not come through a release.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dpbench.core.errors import RunFailed, UserError
from dpbench.core.images import Images
from dpbench.core.streams import Streams
from dpbench.privacy.clipping import Objective, Predict, trainable
from dpbench.privacy.dpsgd import Learner
from dpbench.privacy.events import DPSGDEvent, Event, GaussianEvent, HistogramEvent, SelectionEvent
from dpbench.privacy.ledger import PrivacyLedger
from dpbench.privacy.mechanisms import Candidate, PrivateImages, PrivateSetInfo
from dpbench.training.loop import Stage

NOT_SHOWN = (
    "other images and other draws: a statistic that none of these neighbours changes",
    "code that gets at the data by itself (a file, a download): it is the same on both sides",
    "what leaves by another way than the sampler, such as files and printed text",
    "the noise, which is off here, and whether a method undoes it",
)
# Sums over different batches are rounded differently: 1e-6 of a sum of a hundred gradients.
ROUNDING = 1e-4
# So are the copies of an image at another place of the batch.
ROUNDING_OF_COPIES = 1e-5


@dataclass(frozen=True)
class Neighbour:
    """D, or a set beside it.

    Attributes:
        name: How it differs from D.
        images: The images.
        places: ``(N,)``, int64: the place of each image among those of D and, behind them, the one
            that is added. Draws belong to places.
        changed: Places that make the difference between D and a neighbour: in every batch.
        spoiled: Stands for everything computed from the added image (its copies, its features), as
            if they had overflowed; None leaves them.
    """

    name: str
    images: Images
    places: np.ndarray
    changed: tuple[int, ...]
    spoiled: float | None = None


def neighbours(images: Images) -> tuple[Neighbour, ...]:
    """D itself, first, and the neighbours that are looked at.

    Args:
        images: D, of 2 images or more.

    Returns:
        After D: one image less, in the middle and at the end (N - 1 images behind a declared size
        of N); and one more: random pixels, white, black, a checkerboard, and two whose copies and
        features are NaN, and too large to be squared.
    """
    count, shape = len(images), images.spec.shape
    everybody, changed = np.arange(count + 1), (count // 2, count - 1, count)
    rows, columns = torch.arange(shape[1])[:, None], torch.arange(shape[2])
    random = torch.from_numpy(np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8))

    def less(name: str, place: int) -> Neighbour:
        places = np.delete(everybody[:-1], place)
        return Neighbour(name, images[torch.from_numpy(places)], places, changed)

    def more(name: str, pixels: Tensor, spoiled: float | None = None) -> Neighbour:
        every_pixel = torch.cat([images.pixels, pixels.byte().expand(1, *shape)])
        every_label = torch.cat([images.labels, torch.zeros(1, dtype=torch.int64)])
        return Neighbour(name, Images(every_pixel, every_label), everybody, changed, spoiled)

    return (
        Neighbour("D", images, everybody[:-1], changed),
        less("one removed", count // 2),
        less("last removed", count - 1),
        more("random added", random),
        more("white added", torch.tensor(255)),
        more("black added", torch.tensor(0)),
        more("checkerboard added", 255 * ((rows + columns) % 2)),
        more("NaN added", random, math.nan),
        more("overflow added", random, 1e30),
    )


@dataclass(frozen=True)
class Comparison:
    """Something on D' against the same on D.

    Attributes:
        release: Number of the release, from 0; None for what is no release.
        purpose: What was released, or what else it is.
        neighbour: Name of D'.
        difference: Euclidean distance of the releases without noise, ``inf`` if one of them is not
            finite; for what is no release, 0 if it is the same and ``inf`` if not.
        sensitivity: What the distance may be: the clipping norm; 0 for what is no release.
    """

    release: int | None
    purpose: str
    neighbour: str
    difference: float
    sensitivity: float

    @property
    def ok(self) -> bool:
        """Whether it differs by no more than it may, up to rounding."""
        return self.difference <= self.sensitivity * (1 + ROUNDING)


# For each image that a mechanism looked at, numbers that tell what was computed from it.
Computed = dict[bytes, Tensor]


@dataclass(frozen=True)
class Release:
    """One release, and what surrounded it.

    Attributes:
        event: What was spent for it.
        step: Its number within the event, from 0.
        weights: Digest of the weights that it was computed at.
        value: ``(D,)``: what was released, without noise.
        sensitivity: How far one image more or less may move it.
        computed: What was computed from each image.
    """

    event: Event
    step: int
    weights: bytes
    value: Tensor
    sensitivity: float
    computed: Computed


class ReplayedImages(PrivateImages):
    """Private images that record their releases, and hold them fixed where there is a recording.

    Args:
        neighbour: D or D'.
        info: What is public about both.
        ledger: Of this run.
        key: Of the secret streams; the same for both.
        recorded: D's releases on D'; None on D.
    """

    def __init__(
        self,
        neighbour: Neighbour,
        info: PrivateSetInfo,
        ledger: PrivacyLedger,
        key: bytes,
        recorded: Sequence[Release] | None = None,
    ) -> None:
        """Couple the draws."""
        streams = _CoupledStreams(neighbour, key)
        super().__init__(neighbour.images, info, ledger, streams)
        self.releases: list[Release] = []
        self._coupled = streams
        self._neighbour = neighbour
        self._recorded = recorded
        self._computed: Computed = {}
        self._moved: list[Comparison] = []
        self._differing: set[str] = set()

    def comparisons(self) -> list[Comparison]:
        """Every release against D's, then what surrounds the releases; nothing on D."""
        if self._recorded is None:
            return []
        if len(self.releases) != len(self._recorded):
            self._differing.add(_NUMBER)
        return self._moved + [
            same_or_not(what, self._neighbour, what not in self._differing)
            for what in (_NUMBER, _EVENT, _WEIGHTS, _OTHERS)
        ]

    def dp_sgd(
        self,
        learner: Learner,
        objective: Objective,
        event: DPSGDEvent,
        stage: Stage,
    ) -> None:
        """See ``PrivateImages``; on D' the optimizer gets D's gradients."""
        steps = itertools.count()

        def replay(*_: Any) -> None:
            gradients = [p.grad for p in trainable(learner.model).values() if p.grad is not None]
            value = torch.cat([gradient.flatten() for gradient in gradients])
            weights = _digest(*learner.model.state_dict().values())
            # gradients are kept divided, so that D' gets exactly those of D
            held = self._release(
                Release(event, next(steps), weights, value, event.sensitivity, self._computed),
                scale=event.sample_rate * self.info.nominal_size,
            )
            parts = torch.split(held, [gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

        hook = learner.optimizer.register_step_pre_hook(replay)
        try:
            watched = _WatchedObjective(objective, self._generator, self._watch)
            super().dp_sgd(learner, watched, event, stage)
        finally:
            hook.remove()

    def gaussian_sum(self, features: Callable[[Images], Tensor], event: GaussianEvent) -> Tensor:
        """See ``PrivateImages``; on D' the sum is D's."""

        def watched(images: Images) -> Tensor:
            (rows,) = self._watch(_contents(images.pixels, images.labels), (features(images),))
            return rows

        value = super().gaussian_sum(watched, event)
        return self._release(Release(event, 0, b"", value, event.sensitivity, self._computed))

    def label_histogram(self, event: HistogramEvent) -> Tensor:
        """See ``PrivateImages``; on D' the counts are D's."""
        value = super().label_histogram(event)
        return self._release(Release(event, 0, b"", value, event.sensitivity, self._computed))

    def select(
        self,
        candidates: Sequence[Candidate],
        score: Callable[[Candidate, Images], Tensor],
        event: SelectionEvent,
    ) -> Candidate:
        """Not replayed: a choice has no distance from another one.

        Raises:
            UserError: Always.
        """
        raise UserError("dpbench check cannot replay a method that selects on private images")

    def _generator(self, content: bytes, device: torch.device) -> torch.Generator:
        """What an image draws from, whoever else is in the batch."""
        path = (len(self.releases), content.hex())
        return self._coupled.secret_torch("private-copies", *path, device=device)

    def _watch(self, contents: Sequence[bytes], parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Remember what was computed from each image, then spoil what is to be spoiled.

        Args:
            contents: ``B`` digests of images.
            parts: Tensors of shape ``(B, ...)``.
        """
        fingerprints = torch.stack([_fingerprints(part) for part in parts], dim=1)
        self._computed.update(zip(contents, fingerprints, strict=True))
        if self._neighbour.spoiled is None:
            return parts
        added = self._neighbour.images[-1:]
        (spoiled,) = _contents(added.pixels, added.labels)
        rows = torch.tensor([content == spoiled for content in contents])
        return tuple(_filled(part, rows.to(part.device), self._neighbour.spoiled) for part in parts)

    def _release(self, here: Release, scale: float = 1.0) -> Tensor:
        """Record a release; on D' compare it with D's and give D's.

        Args:
            here: The release.
            scale: The public factor between ``value`` and the sum whose sensitivity is declared.
        """
        number, self._computed = len(self.releases), {}
        self.releases.append(replace(here, value=here.value.clone()))
        if self._recorded is None:
            return here.value
        purpose = here.event.purpose
        if number >= len(self._recorded):
            raise RunFailed(f"{purpose}: there is no release {number + 1} on D")
        there = self._recorded[number]
        if here.value.shape != there.value.shape:
            raise RunFailed(f"{purpose}: release {number + 1} has another shape on D")
        for what, same in (
            (_EVENT, (here.event, here.step) == (there.event, there.step)),
            (_WEIGHTS, here.weights == there.weights),
            (_OTHERS, _alike(here.computed, there.computed)),
        ):
            if not same:
                self._differing.add(what)
        moved = scale * float((here.value.double() - there.value.double()).norm())
        moved = moved if math.isfinite(moved) else math.inf
        allowed = there.sensitivity
        self._moved.append(Comparison(number, purpose, self._neighbour.name, moved, allowed))
        return there.value


_NUMBER = "number of releases"
_EVENT = "events"
_WEIGHTS = "weights before releases"
_OTHERS = "copies and features of the other images"


def same_or_not(what: str, neighbour: Neighbour, same: bool) -> Comparison:
    """The comparison of something that is no release."""
    return Comparison(None, what, neighbour.name, 0.0 if same else math.inf, 0.0)


class _WatchedObjective:
    """An objective that draws for each image apart, and is watched."""

    def __init__(
        self,
        objective: Objective,
        generator: Callable[[bytes, torch.device], torch.Generator],
        watch: Callable[[Sequence[bytes], tuple[Tensor, ...]], tuple[Tensor, ...]],
    ) -> None:
        self._objective = objective
        self._generator = generator
        self._watch = watch

    @property
    def multiplicity(self) -> int:
        return self._objective.multiplicity

    def draw(self, pixels: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, ...]:
        contents = _contents(pixels, labels)
        with _OwnDraws([self._generator(content, rng.device) for content in contents]):
            copies = self._objective.draw(pixels, labels, rng)
        return self._watch(contents, copies)

    def loss(self, predict: Predict, *copies: Tensor) -> Tensor:
        return self._objective.loss(predict, *copies)


class _OwnDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Makes random operators draw the rows of a batch from a generator each.

    With one generator for all, one image less would give those behind it other draws. The batch is
    taken to be the first dimension; what has another one is drawn for all images together.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._generators = generators

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("generator") is None:
            return func(*args, **kwargs)
        batched = [self._is_batched(arg) for arg in args]
        if not any(batched):
            return func(*args, **kwargs)
        rows = []
        for i, generator in enumerate(self._generators):
            own = [_row(arg, i) if b else arg for arg, b in zip(args, batched, strict=True)]
            rows.append(func(*own, **{**kwargs, "generator": generator}))
        return args[0] if func._schema.is_mutable else torch.cat(rows)

    def _is_batched(self, arg: Any) -> bool:
        """Whether an argument is a shape, or a tensor, with a row for each image."""
        shape = arg.shape if isinstance(arg, Tensor) else arg if isinstance(arg, list) else ()
        return len(shape) > 0 and 0 < shape[0] == len(self._generators)


def _row(arg: Any, i: int) -> Any:
    return arg[i : i + 1] if isinstance(arg, Tensor) else [1, *arg[1:]]


class _CoupledStreams(Streams):
    """Secret streams that give an image the same draws in D and D', and no noise."""

    def __init__(self, neighbour: Neighbour, key: bytes) -> None:
        super().__init__(0, key)
        self._neighbour = neighbour

    def secret(self, name: str, *path: object) -> np.random.Generator:
        rng = super().secret(name, *path)
        if name == "poisson":
            return _CoupledDraws(rng, self._neighbour)
        return _NoNoise(rng.bit_generator) if name == "dp-noise" else rng


class _CoupledDraws(np.random.Generator):
    """Uniform draws for the places of images rather than for their positions."""

    def __init__(self, rng: np.random.Generator, neighbour: Neighbour) -> None:
        super().__init__(rng.bit_generator)
        self._neighbour = neighbour

    def random(self, size: Any = None, *rest: Any, **named: Any) -> Any:
        if size != len(self._neighbour.places):
            return super().random(size, *rest, **named)
        draws = super().random(max(self._neighbour.changed) + 1, *rest, **named)
        draws[list(self._neighbour.changed)] = 0  # below any sample rate
        return draws[self._neighbour.places]


class _NoNoise(np.random.Generator):
    """Noise of standard deviation 0."""

    def standard_normal(self, *arguments: Any, **named: Any) -> Any:
        return 0 * super().standard_normal(*arguments, **named)


def _contents(pixels: Tensor, labels: Tensor) -> list[bytes]:
    """A digest of each image with its label: images that are alike may share their draws."""
    return [_digest(*pair) for pair in zip(pixels, labels, strict=True)]


def _digest(*parts: Tensor) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.digest()


def _fingerprints(rows: Tensor) -> Tensor:
    """For each row its product with a fixed vector, and its length: ``(B, 2)``, float64."""
    flat = rows.detach().flatten(1).double().nan_to_num(1.0, 2.0, 3.0)
    direction = torch.arange(1, 1 + flat.shape[1], device=rows.device).double().cos()
    return torch.stack([flat @ direction, flat.norm(dim=1)], dim=1).cpu()


def _alike(here: Computed, there: Computed) -> bool:
    """Whether the same was computed from the images that are in both."""
    both = here.keys() & there.keys()
    if any(here[each].shape != there[each].shape for each in both):
        return False
    return all(
        bool(
            (
                (here[each] - there[each]).abs() <= ROUNDING_OF_COPIES * (1 + there[each][:, 1:])
            ).all()
        )
        for each in both
    )


def _filled(part: Tensor, rows: Tensor, value: float) -> Tensor:
    """A tensor with some rows overwritten, if its type has such values."""
    if not part.is_floating_point():
        return part
    return torch.where(rows.view(-1, *(1,) * (part.ndim - 1)), value, part)
