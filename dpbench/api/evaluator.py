"""What an evaluator is, and what it gets."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from dpbench.api.method import Predictor
from dpbench.api.profiles import Profile
from dpbench.api.sources import PublicSource
from dpbench.core.images import Images
from dpbench.core.metrics import Measurement, MetricSpec
from dpbench.core.progress import Progress
from dpbench.core.streams import Streams
from dpbench.privacy.audit import Mechanism


class Need(enum.Enum):
    """Something an evaluator must declare before it gets it.

    Samples and a predictor are never both there. Metrics of samples are rows with a reason where
    there is a predictor, and a metric of predictors gives no row where there are samples.
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
    """What an evaluator gets.

    Attributes:
        dataset: Name of the data set that the samples imitate.
        classes: Number of classes.
        synthetic: The images under evaluation; none where the method gave a classifier.
        open_real: Opens a real split; only declared ones can be opened.
        profile: The resolved profile.
        device: Where to compute.
        streams: Named random streams; evaluators use ``evaluation``.
        progress: Receives progress updates.
        cache: A folder for what can be computed again.
        mechanism: What made the images and what it claims; None where that was not declared, or is
            not known.
        public: The public images that the method trained on; None where that was not declared, or
            there are none.
        predictor: The classifier under evaluation; None where that was not declared, or the method
            gave images.
        keep: Keeps arrays by name beside the record, where its hash of them is: what was found
            image by image. Each call replaces the last one of the same evaluator. The folder may be
            released: nothing of single images of the train split goes in there. Predicted classes
            of test images, under the name of a metric that is their accuracy in %, beside their
            ``labels``, give it intervals over test images and comparisons of methods.
    """

    dataset: str
    classes: int
    synthetic: Images
    open_real: Callable[[Need], Images]
    profile: Profile
    device: torch.device
    streams: Streams
    progress: Progress
    cache: Path
    mechanism: Mechanism | None = None
    public: PublicSource | None = None
    predictor: Predictor | None = None
    keep: Callable[[Mapping[str, NDArray[np.generic]]], None] = lambda arrays: None


class Evaluator(Protocol):
    """Measures synthetic images, or what made them.

    Attributes:
        summary: One-line description.
        metrics: All metrics it can return.
        needs: What it looks at, and the real splits it opens.
    """

    summary: ClassVar[str]
    metrics: ClassVar[tuple[MetricSpec, ...]]
    needs: ClassVar[frozenset[Need]]

    def evaluate(self, case: EvaluationContext) -> list[Measurement]:
        """Measure; a number that cannot be had is a measurement with a reason."""
