"""The only handle that methods get on private images: every way to read them is a mechanism.

Python cannot keep hostile code from reaching around it. It keeps honest code honest: what is spent
is on the ledger before anything is released.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from dpbench.core.errors import UserError
from dpbench.core.images import Images, ImageSpec
from dpbench.core.streams import Streams
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.calibration import calibrate
from dpbench.privacy.clipping import Objective, check_model, clip_factors, zero_rows
from dpbench.privacy.clipping.selection import Executions, first_that_fits
from dpbench.privacy.dpsgd import Learner, train
from dpbench.privacy.events import DPSGDEvent, Event, GaussianEvent, HistogramEvent, SelectionEvent
from dpbench.privacy.ledger import PrivacyLedger
from dpbench.training.loop import Stage

# few: the features of an image may be some hundred kilobytes
ROWS_AT_ONCE = 128
Candidate = TypeVar("Candidate")


@dataclass(frozen=True)
class PrivateSetInfo:
    """What is public about a private set.

    Attributes:
        dataset: Its name.
        spec: The shape of one image.
        classes: Number of classes.
        nominal_size: The declared number of images, N. Under add/remove adjacency the true number
            is private, so no formula may use it.
    """

    dataset: str
    spec: ImageSpec
    classes: int
    nominal_size: int

    def training(
        self,
        budget: PrivacyBudget,
        batch_size: int,
        steps: int,
        clipping_norm: float,
        purpose: str,
        others: tuple[Event, ...] = (),
    ) -> DPSGDEvent:
        """DP-SGD training that spends what is left of a budget.

        Args:
            budget: What to spend.
            batch_size: Expected size of a Poisson batch, images.
            steps: Number of steps.
            clipping_norm: C.
            purpose: See ``DPSGDEvent``.
            others: Events of the same run that the budget must also pay for.

        Raises:
            UserError: The batch is larger than the set, or the budget cannot be met.
        """
        if batch_size > self.nominal_size:
            raise UserError(
                f"batch_size = {batch_size} is more than the {self.nominal_size} images of "
                f"{self.dataset}: --set batch_size={self.nominal_size // 4}"
            )
        rate = batch_size / self.nominal_size
        return DPSGDEvent(
            rate, calibrate(budget, rate, steps, others), clipping_norm, steps, purpose
        )


class PrivateImages:
    """Private images behind their mechanisms.

    Args:
        images: The images.
        info: What is public about them.
        ledger: Where every mechanism spends.
        streams: Where the mechanisms' secret draws come from.
        executions: Chooses the engine and physical batch size of each private training; None for
            the first engine that fits, without timing.
    """

    def __init__(
        self,
        images: Images,
        info: PrivateSetInfo,
        ledger: PrivacyLedger,
        streams: Streams,
        executions: Executions | None = None,
    ) -> None:
        """Hide the images."""
        self.__images = images
        self.__streams = streams
        self._ledger = ledger
        self._executions = executions
        self.info = info

    @property
    def budget(self) -> PrivacyBudget:
        """What may be spent in all."""
        return self._ledger.budget

    def dp_sgd(
        self,
        learner: Learner,
        objective: Objective,
        event: DPSGDEvent,
        stage: Stage,
    ) -> None:
        """Train with DP-SGD; spends ``event``, releases the weights after every step.

        Args:
            learner: What is trained, in place.
            objective: Loss and multiplicity.
            event: Sample rate, noise multiplier, clipping norm and number of steps.
            stage: Resumes, reports and checkpoints.

        Raises:
            UserError: Over budget, or a model that mixes examples; nothing is trained or spent.
        """
        check_model(learner.model)
        spec = self.info.spec
        if self._executions is None:
            execution = first_that_fits(learner.model, objective, spec)
        else:
            execution = self._executions.of(event.purpose, learner.model, objective, spec)
        allowance = self._ledger.spend(event)

        def note(steps: int) -> str:
            # the accountant takes a moment, so it is asked a few dozen times in all
            if not self.budget.private or steps % max(1, event.steps // 20):
                return ""
            return f"epsilon {self._ledger.spent_after(allowance, steps):.2f}"

        train(
            self.__images,
            self.info.nominal_size,
            learner,
            objective,
            allowance,
            self.__streams,
            stage,
            note=note,
            execution=execution,
        )

    def gaussian_sum(self, features: Callable[[Images], Tensor], event: GaussianEvent) -> Tensor:
        """Release the noisy sum of per-example feature vectors; spends ``event``.

        Args:
            features: Maps ``n`` images to ``(n, D)``, each row from its own image and label alone.
            event: Noise multiplier and clipping norm C: longer rows are shortened to C, rows that
                are not finite count as zero.

        Returns:
            ``(D,)``, float64: the sum plus Gaussian noise of standard deviation
            ``noise_multiplier * C``.

        Raises:
            UserError: Over budget; nothing is released.
            ValueError: ``features`` does not give one row for each image.
        """
        self._ledger.spend(event).release(0)
        total = self._sum(lambda part: _clipped_row_sum(part, features, event.clipping_norm))
        return self._with_noise(total, event)

    def label_histogram(self, event: HistogramEvent) -> Tensor:
        """Release the noisy number of images in each class; spends ``event``.

        Args:
            event: The standard deviation of the noise, in images.

        Returns:
            ``(classes,)``, float64: counts plus Gaussian noise; may be below 0.

        Raises:
            UserError: Over budget; nothing is released.
        """
        self._ledger.spend(event).release(0)
        # a label that is no class counts nowhere, so that the shape tells nothing of the images
        classes = torch.arange(self.info.classes)
        counts = self._sum(lambda part: (part.labels[:, None] == classes).sum(0))
        return self._with_noise(counts, event)

    def select(
        self,
        candidates: Sequence[Candidate],
        score: Callable[[Candidate, Images], Tensor],
        event: SelectionEvent,
    ) -> Candidate:
        """Choose a candidate with a high score, by the exponential mechanism; spends ``event``.

        For instance the checkpoint that labels most of the images right. All images of this handle
        are scored; candidates that learned from them are flattered, which costs no privacy. Images
        held out of training are another handle on the same ledger.

        Args:
            candidates: At least one; what they are must not depend on the images but through
                mechanisms.
            score: Maps a candidate and ``n`` images to ``(n,)`` numbers, each from its own image
                and label alone. They are clamped to [0, 1], and count as 0 where they are NaN.
            event: The scale of the noise.

        Returns:
            The candidate whose sum of scores, plus Gumbel noise of scale ``noise_multiplier``, is
            the largest.

        Raises:
            UserError: Over budget; nothing is released.
            ValueError: No candidate, or ``score`` does not give one number for each image.
        """
        if not candidates:
            raise ValueError("there is no candidate to choose")

        def total(candidate: Candidate) -> Tensor:
            return self._sum(lambda part: _bounded_score(part, candidate, score))

        self._ledger.spend(event).release(0)
        totals = torch.stack([total(candidate) for candidate in candidates])
        rng = self.__streams.secret("dp-noise", event.purpose, 0)
        noise = torch.from_numpy(rng.gumbel(size=len(totals)))
        return candidates[int((totals + event.noise_multiplier * noise).argmax())]

    def _sum(self, of_part: Callable[[Images], Tensor]) -> Tensor:
        """The sum over all images, some at a time, in float64."""
        # one part at least: a set that is empty must give noise like any other
        starts = range(0, max(1, len(self.__images)), ROWS_AT_ONCE)
        parts = (self.__images[start : start + ROWS_AT_ONCE] for start in starts)
        total = torch.zeros((), dtype=torch.float64)
        for part in parts:
            total = total + of_part(part)
        return total

    def _with_noise(self, total: Tensor, event: GaussianEvent | HistogramEvent) -> Tensor:
        """The release of an event, from its ``(D,)`` sum."""
        rng = self.__streams.secret("dp-noise", event.purpose, 0)
        noise = torch.from_numpy(rng.standard_normal(len(total), dtype="float64"))
        return total + event.noise_multiplier * event.sensitivity * noise

    def unprotected(self) -> Images:
        """The images themselves, for reference points that are not private.

        Raises:
            UserError: The budget is finite.
        """
        if self.budget.private:
            raise UserError(
                "this method reads the images themselves, so it has no finite epsilon: "
                "run it with --eps inf"
            )
        return self.__images


def by_class(rows: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Features for ``gaussian_sum`` that are summed class by class; norms are kept.

    Args:
        rows: ``(N, D)``.
        labels: ``(N,)``, int64.
        classes: Number of classes.

    Returns:
        ``(N, classes * D)``: each row in the place of its class, and 0 elsewhere.
    """
    places = rows.new_zeros(len(rows), classes, rows.shape[1])
    places[torch.arange(len(rows)), labels] = rows
    return places.flatten(1)


def _clipped_row_sum(
    images: Images, features: Callable[[Images], Tensor], clipping_norm: float
) -> Tensor:
    rows = features(images).float()
    if rows.ndim != 2 or len(rows) != len(images):
        raise ValueError(
            f"features must have shape ({len(images)}, D), one row for each image; "
            f"got {tuple(rows.shape)}"
        )
    norms = rows.norm(dim=1)
    # in float32 one row more would change the rounding of the sum by a visible part of C
    return clip_factors(norms, clipping_norm).double() @ zero_rows(rows, norms.isfinite()).double()


def _bounded_score(
    images: Images, candidate: Candidate, score: Callable[[Candidate, Images], Tensor]
) -> Tensor:
    scores = score(candidate, images).double()
    if scores.shape != (len(images),):
        raise ValueError(
            f"scores must have shape ({len(images)},), one for each image; "
            f"got {tuple(scores.shape)}"
        )
    return scores.nan_to_num(nan=0).clamp(0, 1).sum()
