"""Frechet distances between synthetic and real images, in two feature spaces."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from dpbench.errors import UserError
from dpbench.progress import Task
from dpbench.protocols import EvaluationContext, Need
from dpbench.types import Images, Measurement, MetricSpec

from ._features import (
    CNN_FEATURES,
    INCEPTION_FEATURES,
    INCEPTION_FILE,
    Extractor,
    cnn_extractor,
    content_hash,
    inception_extractor,
    write_arrays,
)
from ._statistics import Gaussian, frechet_distance, gaussian
from ._subsets import subset

INCEPTION_VARIABLE = "DPBENCH_INCEPTION"
SYNTHETIC = "synthetic"
TRAIN = Need.REAL_TRAIN.value
TEST = Need.REAL_TEST.value


@dataclass(frozen=True)
class Comparison:
    """A row that a feature space gives: the distance between two sets of images."""

    metric: str
    first: str
    second: str


CNN_COMPARISONS = (
    Comparison("fd_cnn", SYNTHETIC, TEST),
    Comparison("fd_cnn", SYNTHETIC, TRAIN),
    Comparison("fd_cnn_floor", TRAIN, TEST),
)
INCEPTION_COMPARISONS = (Comparison("fid", SYNTHETIC, TEST), Comparison("fid", SYNTHETIC, TRAIN))


@dataclass(frozen=True)
class Fidelity:
    """Frechet distances to the real train and test splits.

    The distance falls with the number of images, so every set is cut to the size of the smallest
    (a choice by the evaluation stream, blind to classes): the distances to train and to test and
    the floor, train against test, can then be compared with each other. A distance to train well
    under that to test is a sign of memorisation.

    ``fd_cnn`` is taken in the features of a small CNN trained on the real train split, ``fid``
    (Heusel et al. 2017) in those of Inception-v3, whose weights are the user's to supply: nothing
    is downloaded. A space of D features needs more than D images, or there is no distance. The CNN
    knows the train images, so the floor of ``fd_cnn`` holds its generalisation gap too.
    """

    summary: ClassVar[str] = "Frechet distances to real images: a CNN's features and Inception's"
    metrics: ClassVar[tuple[MetricSpec, ...]] = (
        MetricSpec("fd_cnn", "", False, "Frechet distance, features of a CNN of the data set"),
        MetricSpec("fd_cnn_floor", "", False, "fd_cnn of real train against real test images"),
        MetricSpec("fid", "", False, "Frechet Inception distance"),
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SAMPLES, Need.REAL_TRAIN, Need.REAL_TEST})

    def evaluate(self, case: EvaluationContext) -> list[Measurement]:
        """Measure in both feature spaces; one that cannot be had gives rows with the reason."""
        train = case.open_real(Need.REAL_TRAIN)
        sets = _equal_sizes(case, train, case.open_real(Need.REAL_TEST))
        cnn = cnn_extractor(
            case.dataset, case.classes, train, case.cache, case.device, case.progress
        )
        return [
            *_distances(case, sets, CNN_COMPARISONS, cnn, more_than=CNN_FEATURES),
            *_fid(case, sets, more_than=INCEPTION_FEATURES),
        ]


def _fid(case: EvaluationContext, sets: dict[str, Images], more_than: int) -> list[Measurement]:
    file = os.environ.get(INCEPTION_VARIABLE)
    try:
        if not file:
            raise UserError(
                f"no Inception-v3 weights: get torch-fidelity's {INCEPTION_FILE} "
                f"and set {INCEPTION_VARIABLE}=/path/to/it"
            )
        inception = inception_extractor(Path(file), case.device)
    except UserError as error:
        return [
            _measurement(case, sets, comparison, "", None, str(error))
            for comparison in INCEPTION_COMPARISONS
        ]
    return _distances(case, sets, INCEPTION_COMPARISONS, inception, more_than)


def _equal_sizes(case: EvaluationContext, train: Images, test: Images) -> dict[str, Images]:
    sets = {SYNTHETIC: case.synthetic, TRAIN: train, TEST: test}
    size = min(len(images) for images in sets.values())
    return {
        name: subset(images, size, case.streams.public("evaluation", "fidelity", name))
        for name, images in sets.items()
    }


def _distances(
    case: EvaluationContext,
    sets: dict[str, Images],
    comparisons: tuple[Comparison, ...],
    extractor: Extractor,
    more_than: int,
) -> list[Measurement]:
    size = len(sets[SYNTHETIC])
    if size <= more_than:
        reason = f"needs more than {more_than} images in every set for a covariance; got {size}"
        return [
            _measurement(case, sets, comparison, extractor.id, None, reason)
            for comparison in comparisons
        ]
    with case.progress.task(
        f"features for {comparisons[0].metric}", size * len(sets), "images"
    ) as task:
        moments = {
            SYNTHETIC: _moments(case, sets[SYNTHETIC], extractor, task),
            TRAIN: _cached_moments(case, sets[TRAIN], extractor, task),
            TEST: _cached_moments(case, sets[TEST], extractor, task),
        }
    return [
        _measurement(
            case,
            sets,
            comparison,
            extractor.id,
            frechet_distance(
                moments[comparison.first].mean,
                moments[comparison.first].covariance,
                moments[comparison.second].mean,
                moments[comparison.second].covariance,
            ),
        )
        for comparison in comparisons
    ]


def _moments(case: EvaluationContext, images: Images, extractor: Extractor, task: Task) -> Gaussian:
    return gaussian(extractor.features(images.pixels, case.device, task.advance))


def _cached_moments(
    case: EvaluationContext, images: Images, extractor: Extractor, task: Task
) -> Gaussian:
    # real images are the same in the next run, and Inception takes minutes on a CPU
    file = case.cache / f"{extractor.id}-{content_hash(images)}.npz"
    if not file.exists():
        moments = _moments(case, images, extractor, task)
        write_arrays(file, {"mean": moments.mean, "covariance": moments.covariance})
        return moments
    task.advance(len(images))
    with np.load(file, allow_pickle=False) as arrays:
        return Gaussian(arrays["mean"], arrays["covariance"])


def _measurement(
    case: EvaluationContext,
    sets: dict[str, Images],
    comparison: Comparison,
    extractor: str,
    value: float | None,
    reason: str = "",
) -> Measurement:
    return Measurement(
        comparison.metric,
        value,
        unit="",
        higher_is_better=False,
        n=len(sets[comparison.first]),
        split=comparison.second,
        extractor=extractor,
        reason=reason,
        n_real=len(sets[comparison.second]),
        seed=case.streams.seed("evaluation", "fidelity"),
    )


EVALUATOR = Fidelity
