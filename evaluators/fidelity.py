"""Distances between synthetic and real images in feature spaces: FID and its family."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from threadpoolctl import threadpool_limits

from dpbench.api.evaluator import EvaluationContext, Need
from dpbench.core.errors import Unavailable, UserError
from dpbench.core.images import Images, ImageSpec
from dpbench.core.metrics import Measurement, MetricSpec
from dpbench.data.subsets import random_subset

from .features.cnn import CNN_FEATURES, cnn_extractor
from .features.dinov2 import DINOV2_FILE, DINOV2_VARIABLE, dinov2_extractor
from .features.extractor import Extractor, cached_features
from .features.feature_set import FeatureSet
from .features.inception import INCEPTION_FILE, INCEPTION_VARIABLE, inception_extractor
from .features.metrics import (
    FD_CNN_CLASS,
    IN_CLEAN_INCEPTION,
    IN_CNN,
    IN_DINOV2,
    IN_INCEPTION,
    SYNTHETIC,
    TEST,
    TRAIN,
    FeatureMetrics,
    class_distance,
)

RGB = 3  # channels


@dataclass(frozen=True)
class Fidelity:
    """Distances to the real train and test splits in four feature spaces.

    The distances depend on the number of images, so every set is cut to the size of the smallest
    (by the evaluation stream, blind to classes). The distances to train and to test and the floor,
    train against test, are then comparable. A distance to train far below that to test is a sign of
    memorisation. Nearest neighbours and single classes use fewer images; each row has its number.

    The spaces are the features of a small CNN trained on the real train split (``fd_cnn`` and the
    metrics that end in ``_cnn``), those of Inception-v3 (``fid``, Heusel et al. 2017, and metrics
    without a suffix), the same after clean-fid's resize (``fid_clean``, Parmar et al. 2022), and
    those of DINOv2 (``fd_dinov2``, Stein et al. 2023). Users supply all weights but the CNN's:
    nothing is downloaded. A Frechet distance in D features needs more than D images. The CNN was
    trained on the train images, so the floor of ``fd_cnn`` includes its generalisation gap.
    """

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "FID, KID, precision, recall and others: a CNN, Inception, DINOv2"
    metrics: ClassVar[tuple[MetricSpec, ...]] = (
        *dict.fromkeys(
            metric
            for comparison in (*IN_CNN, *IN_INCEPTION, *IN_CLEAN_INCEPTION, *IN_DINOV2)
            for metric in comparison.metrics
        ),
        FD_CNN_CLASS,
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SAMPLES, Need.REAL_TRAIN, Need.REAL_TEST})

    @staticmethod
    def missing(images: ImageSpec) -> str:
        """Return which weights users have not supplied, of those that suit the images."""
        supplies = [_inception_file]
        if images.channels == RGB:
            supplies.append(_dinov2_file)
        reasons = []
        for supplied in supplies:
            try:
                supplied()
            except Unavailable as error:
                reasons.append(str(error))
        return "; ".join(reasons)

    def evaluate(self, case: EvaluationContext) -> list[Measurement]:
        """Measure in every space; a metric that is not available is a row with the reason."""
        train = case.open_real(Need.REAL_TRAIN)
        sets = _equal_sizes(case, train, case.open_real(Need.REAL_TEST))
        device = case.device

        def cnn() -> Extractor:
            return cnn_extractor(
                case.dataset, case.classes, train, case.cache, device, case.progress
            )

        def inception(clean: bool) -> Extractor:
            return inception_extractor(_inception_file(), device, clean)

        def dinov2() -> Extractor:
            if train.spec.channels != RGB:
                raise UserError("DINOv2 is for RGB images alone")
            return dinov2_extractor(_dinov2_file(), device)

        classes = tuple(class_distance(label) for label in range(case.classes))
        return [
            *measure(case, sets, IN_CNN + classes, cnn),
            *measure(case, sets, IN_INCEPTION, lambda: inception(clean=False)),
            *measure(case, sets, IN_CLEAN_INCEPTION, lambda: inception(clean=True)),
            *measure(case, sets, IN_DINOV2, dinov2),
        ]


def _inception_file() -> Path:
    return _supplied(INCEPTION_VARIABLE, f"torch-fidelity's {INCEPTION_FILE}")


def _dinov2_file() -> Path:
    return _supplied(DINOV2_VARIABLE, DINOV2_FILE)


def _supplied(variable: str, what: str) -> Path:
    """Return the file of weights that an environment variable names.

    Raises:
        Unavailable: It is not set.
        UserError: It names no file.
    """
    name = os.environ.get(variable)
    if not name:
        raise Unavailable(f"no weights: get {what} and set {variable}=/path/to/it")
    file = Path(name)
    if not file.is_file():
        raise UserError(f"{variable} names {file}, which is not a file; expected {what}")
    return file


def _equal_sizes(case: EvaluationContext, train: Images, test: Images) -> dict[str, Images]:
    sets = {SYNTHETIC: case.synthetic, TRAIN: train, TEST: test}
    size = min(len(images) for images in sets.values())
    return {
        name: random_subset(images, size, case.streams.public("evaluation", "fidelity", name))
        for name, images in sets.items()
    }


def measure(
    case: EvaluationContext,
    sets: Mapping[str, Images],
    comparisons: Sequence[FeatureMetrics],
    make_extractor: Callable[[], Extractor],
) -> list[Measurement]:
    """Measure in one feature space.

    Args:
        case: The samples under evaluation, with device, cache and streams.
        sets: Images by the name of their set, equally many.
        comparisons: Metrics to compute.
        make_extractor: Makes the space's extractor; its ``UserError`` becomes the reason of all
            rows, and what is ``Unavailable`` also one of the evaluator's status.
    """
    size = len(sets[SYNTHETIC])
    try:
        extractor = make_extractor()
    except UserError as error:
        if isinstance(error, Unavailable):
            case.unavailable(str(error))
        return _all_missing(case, comparisons, "", size, str(error))
    fewest = min(comparison.more_than for comparison in comparisons)
    if size <= fewest:  # features may take minutes
        return _all_missing(case, comparisons, extractor.id, size, _too_few(fewest, size))
    features = _features(case, sets, extractor)
    seed = case.streams.seed("evaluation", "fidelity")
    rows = []
    label = f"distances by {extractor.id}"
    # threads cost more than they save on small matrices, tenfold where the cores are busy
    threads = 1 if extractor.dimension <= CNN_FEATURES else None
    with (
        threadpool_limits(threads),
        case.progress.task(label, len(comparisons), "comparisons") as task,
    ):
        for comparison in comparisons:
            count, found = _compare(comparison, features, seed)
            rows += _rows(case, comparison, extractor.id, count, found)
            task.advance(1)
    return rows


def _features(
    case: EvaluationContext, sets: Mapping[str, Images], extractor: Extractor
) -> dict[str, FeatureSet]:
    found = {}
    total = sum(len(images) for images in sets.values())
    with case.progress.task(f"features by {extractor.id}", total, "images") as task:
        for name, images in sets.items():
            if name == SYNTHETIC:
                values = extractor.features(images.pixels, case.device, task.advance)
            else:
                # real images are the same in the next run, and Inception takes minutes on a CPU
                values = cached_features(extractor, images, case.cache, case.device, task.advance)
            rng = case.streams.public("evaluation", "fidelity", name, "order")
            order = torch.randperm(len(images), generator=rng).numpy()
            found[name] = FeatureSet(values[order], images.labels.numpy()[order], extractor.head)
    return found


def _compare(
    comparison: FeatureMetrics, features: Mapping[str, FeatureSet], seed: int
) -> tuple[int, Sequence[float] | str]:
    """Return how many images of each set were compared, and the numbers or the reason for none."""
    parts = [comparison.part(features[name]) for name in comparison.between]
    size = min(len(part) for part in parts)
    if size <= comparison.more_than:
        return size, _too_few(comparison.more_than, size)
    for name in comparison.between:
        if broken := features[name].broken:
            return size, f"{broken} {name} images have features that are not finite"
    # a set of this size is passed as it is, to reuse its cached statistics
    values = comparison.values([p if len(p) == size else p[:size] for p in parts], seed)
    if not all(math.isfinite(value) for value in values):
        return size, "the features are too large: the result is not finite"
    return size, values


def _too_few(more_than: int, size: int) -> str:
    return f"needs more than {more_than} images in every set; got {size}"


def _all_missing(
    case: EvaluationContext,
    comparisons: Sequence[FeatureMetrics],
    extractor: str,
    size: int,
    reason: str,
) -> list[Measurement]:
    return [
        row
        for comparison in comparisons
        for row in _rows(case, comparison, extractor, size, reason)
    ]


def _rows(
    case: EvaluationContext,
    comparison: FeatureMetrics,
    extractor: str,
    size: int,
    found: Sequence[float] | str,
) -> list[Measurement]:
    """Return one row for each metric."""
    against = comparison.between[1:]
    reason = found if isinstance(found, str) else ""
    values = [None] * len(comparison.metrics) if isinstance(found, str) else found
    return [
        Measurement(
            metric.name,
            value,
            metric.unit,
            metric.higher_is_better,
            n=size,
            split="".join(against),
            extractor=extractor,
            reason=reason,
            n_real=size * len(against),
            seed=case.streams.seed("evaluation", "fidelity"),
        )
        for metric, value in zip(comparison.metrics, values, strict=True)
    ]


EVALUATOR = Fidelity
