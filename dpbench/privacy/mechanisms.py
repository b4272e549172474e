"""Mechanisms: the only access that methods have to private images.

Every mechanism writes what it spends on the ledger before it releases anything, and goes by the
values that the ledger has written down. Python cannot keep hostile code from reaching around this
class; it keeps honest code honest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeVar

import torch
from torch import Tensor

from dpbench.core.errors import RunFailed, UserError
from dpbench.core.images import Images, ImageSpec
from dpbench.core.streams import Streams
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.calibration import calibrate
from dpbench.privacy.clipping import Objective, check_model, clip_factors, zero_rows
from dpbench.privacy.clipping.selection import Executions, first_that_fits
from dpbench.privacy.dpsgd import Learner, train
from dpbench.privacy.draws import HeldToItsCopies
from dpbench.privacy.events import DPSGDEvent, Event, GaussianEvent, HistogramEvent, SelectionEvent
from dpbench.privacy.ledger import PrivacyLedger
from dpbench.training.evaluations import GradientEvaluations
from dpbench.training.loop import Stage

# Images that ``features`` gets at once; few, because features may take hundreds of kilobytes each.
ROWS_AT_ONCE = 128
Candidate = TypeVar("Candidate")
OneRelease = TypeVar("OneRelease", GaussianEvent, HistogramEvent, SelectionEvent)


@dataclass(frozen=True)
class PrivateSetInfo:
    """Public facts about a private set.

    Attributes:
        dataset: Name of the data set.
        spec: Shape of one image.
        classes: Number of classes.
        nominal_size: Declared number of images N. Under add/remove adjacency the true number is
            private, so no formula may use it.
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
        """The event of DP-SGD training that spends what other events leave of a budget.

        Args:
            budget: Privacy budget of the run.
            batch_size: Expected number of images in a Poisson batch.
            steps: Number of steps.
            clipping_norm: Clipping norm C, above 0.
            purpose: Name of the training, unique in a run.
            others: Events of the same run that the budget must also pay for.

        Raises:
            UserError: The batch is larger than the set, or no noise multiplier meets the budget.
        """
        if batch_size > self.nominal_size:
            raise UserError(
                f"batch_size = {batch_size} is more than the {self.nominal_size} images of "
                f"{self.dataset}: --set batch_size={self.nominal_size // 4}"
            )
        rate = batch_size / self.nominal_size
        return DPSGDEvent(
            sample_rate=rate,
            noise_multiplier=calibrate(budget, rate, steps, others),
            clipping_norm=clipping_norm,
            steps=steps,
            purpose=purpose,
        )


class PrivateImages:
    """Private images, readable through mechanisms only.

    Args:
        images: The private images.
        info: Public facts about them.
        ledger: Ledger on which every mechanism spends.
        streams: Source of the mechanisms' secret draws.
        executions: Chooses the engine and physical batch size of each private training; None for
            the first engine that fits, without timing.
        evaluations: Counts gradient evaluations against the plan; None for a count of its own.
    """

    def __init__(
        self,
        images: Images,
        info: PrivateSetInfo,
        ledger: PrivacyLedger,
        streams: Streams,
        executions: Executions | None = None,
        evaluations: GradientEvaluations | None = None,
    ) -> None:
        """Store the images out of reach of honest code."""
        self.__images: Images | None = images
        self.__streams = streams
        self.__size = info.nominal_size
        self._evaluations = evaluations or GradientEvaluations()
        self._ledger = ledger
        self._executions = executions
        self.info = info

    @property
    def budget(self) -> PrivacyBudget:
        """Privacy budget of the run."""
        return self._ledger.budget

    def close(self) -> None:
        """Let go of the images when ``fit`` is over; every mechanism is refused from then on."""
        self.__images = None

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be pickled or copied.

        Raises:
            RunFailed: Always.
        """
        raise RunFailed(
            "private images cannot be pickled or copied: keep what their mechanisms released, and "
            "not the images themselves"
        )

    def __opened(self) -> Images:
        """The images.

        Raises:
            RunFailed: ``fit`` is over.
        """
        if self.__images is None:
            raise RunFailed("private images cannot be used when fit is over: release what you need")
        return self.__images

    def dp_sgd(
        self,
        learner: Learner,
        objective: Objective,
        event: DPSGDEvent,
        stage: Stage,
    ) -> None:
        """Train with DP-SGD: spend ``event`` and release the weights after every step.

        Args:
            learner: Trained in place.
            objective: Training loss.
            event: Sample rate, noise multiplier, clipping norm and number of steps.
            stage: Loop that resumes, reports and checkpoints.

        Raises:
            UserError: The event exceeds the budget, or the model mixes examples; nothing has been
                trained or spent.
            RunFailed: The event is not the planned one, or makes more gradient evaluations than are
                planned; nothing has been trained or spent.
        """
        images = self.__opened()
        check_model(learner.model)
        objective = HeldToItsCopies(objective)
        spec = self.info.spec
        if self._executions is None:
            execution = first_that_fits(learner.model, objective, spec)
        else:
            execution = self._executions.of(event.purpose, learner.model, objective, spec)
        expected = event.steps * event.sample_rate * self.__size * objective.multiplicity
        self._evaluations.count_private(expected, event.purpose)
        allowance = self._ledger.spend(event)
        total = allowance.event.steps

        def note(steps: int) -> str:
            # the accountant is slow, so it is asked about 20 times in all
            if not self.budget.private or steps % max(1, total // 20):
                return ""
            return f"epsilon {self._ledger.spent_after(allowance, steps):.2f}"

        train(
            images,
            self.__size,
            learner,
            objective,
            allowance,
            self.__streams,
            stage,
            note=note,
            execution=execution,
        )

    def gaussian_sum(self, features: Callable[[Images], Tensor], event: GaussianEvent) -> Tensor:
        """Spend ``event`` and release the noisy sum of per-example feature vectors.

        Args:
            features: Maps ``n`` images to ``(n, D)``, each row computed from its own image and
                label alone.
            event: Noise multiplier and clipping norm C. Longer rows are shortened to norm C; rows
                that are not finite count as zero.

        Returns:
            ``(D,)``, float64: the sum plus Gaussian noise of standard deviation
            ``noise_multiplier * C``.

        Raises:
            UserError: The event exceeds the budget; nothing is released.
            ValueError: ``features`` does not return one row for each image.
        """
        spent = self.__spend_once(event)
        total = self._sum(lambda part: _clipped_row_sum(part, features, spent.clipping_norm))
        return self._with_noise(total, spent)

    def label_histogram(self, event: HistogramEvent) -> Tensor:
        """Spend ``event`` and release the noisy number of images in each class.

        Args:
            event: Event with the standard deviation of the noise, in images.

        Returns:
            ``(classes,)``, float64: counts plus Gaussian noise; may be negative.

        Raises:
            UserError: The event exceeds the budget; nothing is released.
        """
        spent = self.__spend_once(event)
        # a label outside the classes is not counted, so the shape does not depend on the images
        classes = torch.arange(self.info.classes)
        counts = self._sum(lambda part: (part.labels[:, None] == classes).sum(0))
        return self._with_noise(counts, spent)

    def select(
        self,
        candidates: Sequence[Candidate],
        score: Callable[[Candidate, Images], Tensor],
        event: SelectionEvent,
    ) -> Candidate:
        """Spend ``event`` and choose a candidate of high score by the exponential mechanism.

        A candidate is for instance a checkpoint, scored by whether it labels an image correctly.
        All images of this handle are scored. Candidates that were trained on them score too well,
        which costs no privacy. To score images held out of training, use another handle on the same
        ledger.

        Args:
            candidates: At least one; they may depend on the images through mechanisms only.
            score: Maps a candidate and ``n`` images to ``(n,)`` numbers, each computed from its own
                image and label alone. Numbers are clamped to [0, 1]; NaN counts as 0.
            event: Event with the scale of the noise.

        Returns:
            The candidate with the largest sum of scores plus Gumbel noise of scale
            ``noise_multiplier``.

        Raises:
            UserError: The event exceeds the budget; nothing is released.
            ValueError: There is no candidate, or ``score`` does not return one number per image.
        """
        if not candidates:
            raise ValueError("there is no candidate to choose")

        def total(candidate: Candidate) -> Tensor:
            return self._sum(lambda part: _bounded_score(part, candidate, score))

        spent = self.__spend_once(event)
        totals = torch.stack([total(candidate) for candidate in candidates])
        return candidates[self._choice(totals, spent)]

    def _choice(self, totals: Tensor, event: SelectionEvent) -> int:
        """Index of the largest of the ``(candidates,)`` totals plus Gumbel noise."""
        rng = self.__streams.secret("dp-noise", event.purpose, 0)
        noise = torch.from_numpy(rng.gumbel(size=len(totals)))
        return int((totals + event.noise_multiplier * noise).argmax())

    def __spend_once(self, event: OneRelease) -> OneRelease:
        """Spend an event of one release, and count it; return the values that were spent."""
        self.__opened()
        allowance = self._ledger.spend(event)
        allowance.release(0)
        spent = allowance.event
        assert isinstance(spent, type(event))
        return spent

    def _sum(self, sum_of_part: Callable[[Images], Tensor]) -> Tensor:
        """Sum over all images in float64, ``ROWS_AT_ONCE`` images at a time."""
        images = self.__opened()
        # at least one part, because an empty set must give noise like any other
        starts = range(0, max(1, len(images)), ROWS_AT_ONCE)
        parts = (images[start : start + ROWS_AT_ONCE] for start in starts)
        total = torch.zeros((), dtype=torch.float64)
        for part in parts:
            total = total + sum_of_part(part)
        return total

    def _with_noise(self, total: Tensor, event: GaussianEvent | HistogramEvent) -> Tensor:
        """Add the noise of ``event`` to its ``(D,)`` sum."""
        rng = self.__streams.secret("dp-noise", event.purpose, 0)
        noise = torch.from_numpy(rng.standard_normal(len(total), dtype="float64"))
        return total + event.noise_multiplier * event.sensitivity * noise

    def unprotected(self) -> Images:
        """Return the images themselves, for baselines that are not private.

        Raises:
            UserError: The run's epsilon is finite.
        """
        if self.budget.private:
            raise UserError(
                "this method reads the images themselves, so it has no finite epsilon: "
                "run it with --eps inf"
            )
        self._evaluations.give_images()
        return self.__opened()


def by_class(rows: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Arrange features so that ``gaussian_sum`` sums them class by class; norms are preserved.

    Args:
        rows: ``(N, D)``.
        labels: ``(N,)``, int64.
        classes: Number of classes.

    Returns:
        ``(N, classes * D)``: each row at the place of its class, 0 elsewhere.
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
    # in float64, because in float32 an additional row would change the rounding of the sum by a
    # visible part of C
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
