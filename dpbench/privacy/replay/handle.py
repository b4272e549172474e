"""The private images of a replay: they record releases on D and hold them fixed on D'."""

from __future__ import annotations

import itertools
import math
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dpbench.core.errors import RunFailed
from dpbench.core.images import Images, ImageSpec
from dpbench.privacy.clipping import Objective, engine, trainable
from dpbench.privacy.clipping.selection import Execution, Executions, first_that_fits
from dpbench.privacy.dpsgd import Learner
from dpbench.privacy.events import DPSGDEvent, Event, GaussianEvent, HistogramEvent, SelectionEvent
from dpbench.privacy.ledger import PrivacyLedger
from dpbench.privacy.mechanisms import Candidate, PrivateImages, PrivateSetInfo
from dpbench.privacy.replay.coupling import CoupledStreams, WatchedObjective, digest_of, digests_of
from dpbench.privacy.replay.mixing import mixes
from dpbench.privacy.replay.neighbours import Neighbour
from dpbench.training.evaluations import GradientEvaluations
from dpbench.training.loop import Stage

# Tolerance of a distance over its sensitivity: sums over different batches are rounded differently,
# by about 1e-6 of a sum of a hundred gradients.
ROUNDING = 1e-4
# Tolerance for the copies of an image, which are rounded differently at another place of the batch.
ROUNDING_OF_COPIES = 1e-5
_NUMBER = "number of releases"
_EVENT = "events"
_WEIGHTS = "weights before releases"
_OTHERS = "copies and features of the other images"


@dataclass(frozen=True)
class Comparison:
    """A release, or something else that a method computes, on D' compared with that on D.

    Attributes:
        release: Number of the release, from 0; None if it is no release.
        purpose: Purpose of the release's event, or a description of what is compared.
        neighbour: Name of D'.
        difference: Euclidean distance of the releases without noise, for the scores of a selection
            the largest difference of any one; ``inf`` if one of them is not finite. If it is no
            release: 0 if both are the same, else ``inf``.
        sensitivity: Largest distance allowed: the sensitivity of the release; 0 if it is none.
    """

    release: int | None
    purpose: str
    neighbour: str
    difference: float
    sensitivity: float

    @property
    def ok(self) -> bool:
        """Whether the difference is within the sensitivity, up to rounding."""
        return self.difference <= self.sensitivity * (1 + ROUNDING)


def same_or_not(what: str, neighbour: str, same: bool) -> Comparison:
    """Comparison of something that is no release: it must be the same on both sets."""
    return Comparison(None, what, neighbour, 0.0 if same else math.inf, 0.0)


# Maps the digest of each image that a mechanism read to fingerprints of what was computed from it,
# (parts, 2). Arrays, for they pass between processes, and thousands of small tensors do so slowly.
Computed = dict[bytes, np.ndarray]


@dataclass(frozen=True)
class Release:
    """One release and its circumstances.

    Attributes:
        event: Event that was spent for the release.
        step: Number of the release within the event, from 0.
        weights: Digest of the weights at which it was computed.
        value: ``(D,)``: the released vector, without noise.
        computed: Fingerprints of what was computed from each image.
    """

    event: Event
    step: int
    weights: bytes
    value: Tensor
    computed: Computed

    def distance(self, other: Release) -> float:
        """Distance of the values, in the norm in which the event declares its sensitivity."""
        order = math.inf if isinstance(self.event, SelectionEvent) else 2
        moved = torch.linalg.vector_norm(self.value.double() - other.value.double(), order)
        return float(moved) if moved.isfinite() else math.inf


class _Known(Executions):
    """Keeps the executions that were chosen, so that they are known after training too.

    Args:
        chosen_by: Chooses; None for the first engine that fits, without timing.
    """

    def __init__(self, chosen_by: Executions | None) -> None:
        super().__init__()
        self._chosen_by = chosen_by
        self.used: dict[str, Execution] = {}

    def of(
        self, purpose: str, model: nn.Module, objective: Objective, spec: ImageSpec
    ) -> Execution:
        """Choose as ``chosen_by`` does."""
        if self._chosen_by is None:
            execution = first_that_fits(model, objective, spec)
        else:
            execution = self._chosen_by.of(purpose, model, objective, spec)
        self.used[purpose] = execution
        return execution


class ReplayedImages(PrivateImages):
    """Private images that record their releases on D, and replace them by those of D on D'.

    Args:
        neighbour: D or D'.
        info: Public facts about both sets.
        ledger: Ledger of this fit.
        key: Key of the secret streams, the same for both sets.
        recorded: The releases on D, for a fit on D'; None for the fit on D.
        executions: Chooses the engine of each private training, as ``PrivateImages`` takes it.
        evaluations: Counts gradient evaluations, as ``PrivateImages`` takes it.
        interrupt_at: Number of the release at which SIGINT comes, as by Ctrl-C; None for never.
    """

    def __init__(
        self,
        neighbour: Neighbour,
        info: PrivateSetInfo,
        ledger: PrivacyLedger,
        key: bytes,
        recorded: Sequence[Release] | None = None,
        executions: Executions | None = None,
        evaluations: GradientEvaluations | None = None,
        interrupt_at: int | None = None,
    ) -> None:
        """Couple the random draws to those of D."""
        streams, self._known = CoupledStreams(neighbour, key), _Known(executions)
        super().__init__(neighbour.images, info, ledger, streams, self._known, evaluations)
        self._interrupt_at = interrupt_at
        self.releases: list[Release] = []
        self._coupled = streams
        self._neighbour = neighbour
        self._recorded = recorded
        self._computed: Computed = {}
        self._moved: list[Comparison] = []
        self._differing: set[str] = set()

    def comparisons(self) -> list[Comparison]:
        """What was compared: on D gradients among other images, else releases with those on D.

        After the comparisons of releases come those of their circumstances. Releases on a set of
        strangers are not compared.
        """
        if self._recorded is None:
            return self._moved
        if len(self.releases) != len(self._recorded):
            self._differing.add(_NUMBER)
        return self._moved + [
            same_or_not(what, self._neighbour.name, what not in self._differing)
            for what in (_NUMBER, _EVENT, _WEIGHTS, _OTHERS)
        ]

    def dp_sgd(
        self,
        learner: Learner,
        objective: Objective,
        event: DPSGDEvent,
        stage: Stage,
    ) -> None:
        """Train as ``PrivateImages`` does; on D' the optimizer gets the gradients of D."""
        steps = itertools.count()

        def replay(*_: Any) -> None:
            gradients = [p.grad for p in trainable(learner.model).values() if p.grad is not None]
            value = torch.cat([gradient.flatten() for gradient in gradients])
            weights = digest_of(*learner.model.state_dict().values())
            # gradients are recorded as the optimizer gets them, so that D' gets exactly those of D
            held = self._release(
                Release(event, next(steps), weights, value, self._computed),
                scale=event.sample_rate * self.info.nominal_size,
            )
            parts = torch.split(held, [gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

        hook = learner.optimizer.register_step_pre_hook(replay)
        try:
            watched = WatchedObjective(objective, self._coupled.of_image, self._watch)
            super().dp_sgd(learner, watched, event, stage)
        finally:
            hook.remove()
        if self._recorded is None:
            clipped = engine(self._known.used[event.purpose].engine)
            mixed = mixes(learner.model, objective, self._neighbour.images, clipped)
            what = f"{event.purpose}: gradient of an image among others"
            self._moved.append(same_or_not(what, self._neighbour.name, not mixed))

    def gaussian_sum(self, features: Callable[[Images], Tensor], event: GaussianEvent) -> Tensor:
        """Release a sum as ``PrivateImages`` does; on D' return that of D."""

        def watched(images: Images) -> Tensor:
            (rows,) = self._watch(digests_of(images.pixels, images.labels), (features(images),))
            return rows

        value = super().gaussian_sum(watched, event)
        return self._release(Release(event, 0, b"", value, self._computed))

    def label_histogram(self, event: HistogramEvent) -> Tensor:
        """Release counts as ``PrivateImages`` does; on D' return those of D."""
        value = super().label_histogram(event)
        return self._release(Release(event, 0, b"", value, self._computed))

    def select(
        self,
        candidates: Sequence[Candidate],
        score: Callable[[Candidate, Images], Tensor],
        event: SelectionEvent,
    ) -> Candidate:
        """Select as ``PrivateImages`` does, without noise; on D' by the scores of D."""

        def watched(candidate: Candidate, images: Images) -> Tensor:
            scores = score(candidate, images)
            if scores.shape != (len(images),):
                return scores  # the mechanism says what is wrong with them
            # each image is scored for every candidate
            number = next(i for i, each in enumerate(candidates) if each is candidate)
            contents = digests_of(images.pixels, images.labels)
            (rows,) = self._watch(contents, (scores[:, None],), str(number))
            return rows[:, 0]

        return super().select(candidates, watched, event)

    def _choice(self, totals: Tensor, event: SelectionEvent) -> int:
        return int(self._release(Release(event, 0, b"", totals, self._computed)).argmax())

    def _watch(
        self, contents: Sequence[bytes], parts: tuple[Tensor, ...], of: str = ""
    ) -> tuple[Tensor, ...]:
        """Record what was computed from each image, then spoil that of the added image if asked.

        Args:
            contents: Digests of B images.
            parts: Tensors of shape ``(B, ...)``.
            of: Tells apart what is computed from the same images several times.

        Returns:
            ``parts``, with the rows of the added image replaced by ``Neighbour.spoiled``.
        """
        fingerprints = torch.stack([_fingerprints(part) for part in parts], dim=1).numpy()
        keys = [content + of.encode() for content in contents]
        self._computed.update(zip(keys, fingerprints, strict=True))
        if self._neighbour.spoiled is None:
            return parts
        added = self._neighbour.images[-1:]
        (spoiled,) = digests_of(added.pixels, added.labels)
        rows = torch.tensor([content == spoiled for content in contents])
        return tuple(_filled(part, rows.to(part.device), self._neighbour.spoiled) for part in parts)

    def _release(self, here: Release, scale: float = 1.0) -> Tensor:
        """Record a release; on D' compare it with that on D, and return the latter.

        Args:
            here: The release.
            scale: Public factor from the value to the sum whose sensitivity is declared.

        Raises:
            RunFailed: D has no such release, or one of another shape.
        """
        number, self._computed = len(self.releases), {}
        if number == self._interrupt_at:
            signal.raise_signal(signal.SIGINT)
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
        if not self._neighbour.strange:
            moved, allowed = scale * here.distance(there), there.event.sensitivity
            self._moved.append(Comparison(number, purpose, self._neighbour.name, moved, allowed))
        return there.value


def _fingerprints(rows: Tensor) -> Tensor:
    """Product of each row with a fixed vector, and its norm: ``(B, 2)``, float64."""
    flat = rows.detach().flatten(1).double()
    norms = flat.norm(dim=1)
    if not norms.isfinite().all():
        flat = flat.nan_to_num(1.0, 2.0, 3.0)
        norms = flat.norm(dim=1)
    direction = torch.arange(1, 1 + flat.shape[1], device=rows.device).double().cos()
    return torch.stack([flat @ direction, norms], dim=1).cpu()


def _alike(here: Computed, there: Computed) -> bool:
    """Whether the same was computed from the images that are in both sets, up to rounding."""
    both = here.keys() & there.keys()
    if any(here[i].shape != there[i].shape for i in both):
        return False
    with np.errstate(invalid="ignore"):  # what is infinite on both sides is not the same
        return all(
            bool((abs(here[i] - there[i]) <= ROUNDING_OF_COPIES * (1 + there[i][:, 1:])).all())
            for i in both
        )


def _filled(part: Tensor, rows: Tensor, value: float) -> Tensor:
    """``part`` with ``rows`` set to ``value`` if its dtype is a float; else unchanged."""
    if not part.is_floating_point():
        return part
    return torch.where(rows.view(-1, *(1,) * (part.ndim - 1)), value, part)
