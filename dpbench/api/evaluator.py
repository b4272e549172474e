"""What an evaluator is, and what it gets."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from dpbench.api.method import Predictor
from dpbench.api.profiles import Profile
from dpbench.api.sources import PublicSource
from dpbench.core.cache import Cache
from dpbench.core.images import Images
from dpbench.core.metrics import Measurement, MetricSpec
from dpbench.core.progress import Progress
from dpbench.core.streams import Streams
from dpbench.privacy.audit import Mechanism


class Need(enum.Enum):
    """Something that an evaluator gets only if it declares it.

    A method gives samples or a predictor, never both. For a predictor, metrics of samples become
    rows with a reason; for samples, metrics of predictors give no row.
    """

    SAMPLES = "samples"
    PREDICTOR = "predictor"
    REAL_TRAIN = "train"
    REAL_VALIDATION = "validation"
    REAL_TEST = "test"
    MECHANISM = "mechanism"
    PUBLIC = "public"


@dataclass(frozen=True)
class EvaluationContext:
    """What the harness gives an evaluator.

    Attributes:
        dataset: Name of the data set that the samples imitate.
        classes: Number of classes.
        synthetic: The images under evaluation; empty if the method gave a classifier.
        open_real: Opens a real split; undeclared splits are refused.
        profile: Profile of the evaluation.
        device: Device to compute on.
        streams: Named random streams; evaluators use ``evaluation``.
        progress: Receives progress updates.
        cache: Keeps results that can be computed again, such as features of real images.
        mechanism: The mechanism that made the images, with its claim; None if undeclared or
            unknown.
        public: The public images that the method trained on; None if undeclared, or if there are
            none.
        predictor: The classifier under evaluation; None if undeclared, or if the method gave
            images.
        run_id: Id of the run under evaluation, or of the scores if the samples were made elsewhere.
            Draws that must not be shared by runs of the same public seed derive from it.
        keep: Writes named arrays of results per image beside the record, which holds their hash.
            Each call replaces the previous one of the same evaluator. The folder may be released,
            so results on single train images must not be kept. Predicted classes of test images,
            kept under the name of a metric that is their accuracy in %, beside their ``labels``,
            give that metric intervals over test images and comparisons of methods.
        unavailable: Called with what a user may supply later and is not here, such as a file of
            weights, if the evaluator measures without it. Its status becomes ``unavailable``.
    """

    dataset: str
    classes: int
    synthetic: Images
    open_real: Callable[[Need], Images]
    profile: Profile
    device: torch.device
    streams: Streams
    progress: Progress
    cache: Cache
    mechanism: Mechanism | None = None
    public: PublicSource | None = None
    predictor: Predictor | None = None
    run_id: str = ""
    keep: Callable[[Mapping[str, NDArray[np.generic]]], None] = lambda arrays: None
    unavailable: Callable[[str], None] = lambda reason: None


class Evaluator(Protocol):
    """Measures synthetic images, or what made them.

    A call ends in one of three ways, which the record keeps as the evaluator's status. It returns:
    the evaluator has measured, whatever rows have a reason in place of a value. It raises
    ``Unavailable``, or returns after ``case.unavailable``: it lacks what a user may supply later.
    It raises anything else, or returns a metric that it does not declare: it failed. After the last
    two, the same command tries again and replaces the rows.

    An evaluator may also have ``missing(images: ImageSpec) -> str``, a static method that tells in
    no time what it lacks for images of this shape, as ``unavailable`` is told, joined by ``"; "``.
    As long as this is what the status says, it is not tried again in vain. What a user names and is
    not there, such as a file, is a ``UserError`` of ``missing``, before anything is made.

    Attributes:
        summary: One-line description.
        metrics: All metrics that it can return.
        needs: Inputs that it uses, and real splits that it opens.

    A built-in one also has a ``version``, raised when it measures otherwise.
    """

    summary: ClassVar[str]
    metrics: ClassVar[tuple[MetricSpec, ...]]
    needs: ClassVar[frozenset[Need]]

    def evaluate(self, case: EvaluationContext) -> list[Measurement]:
        """Return measurements; one that is not possible has a reason in place of a value."""
