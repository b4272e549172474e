"""Fidelity metrics: the sets compared in each feature space, and the formulas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from dpbench.api.evaluator import Need
from dpbench.core.metrics import MetricSpec

from ..distances.frechet import frechet_at_infinity, frechet_distance
from ..distances.kid import kernel_distance
from ..distances.prdc import prdc
from .cnn import CNN_FEATURES
from .dinov2 import DINOV2_FEATURES
from .feature_set import NEIGHBOURS, FeatureSet
from .inception import INCEPTION_FEATURES

SYNTHETIC = "synthetic"
TRAIN = Need.REAL_TRAIN.value
TEST = Need.REAL_TEST.value
# torch-fidelity's size; ten subsets of 10000 images use each image about once
KID_SUBSETS, KID_SIZE = 10, 1000
INCEPTION_SCORE_SPLITS = 10

FD_CNN = MetricSpec("fd_cnn", "", False, "Frechet distance, features of a CNN of the data set")
FD_CNN_FLOOR = MetricSpec(
    "fd_cnn_floor", "", False, "fd_cnn of real train against real test", "reference"
)
FD_CNN_CLASS = MetricSpec(
    "fd_cnn_class*", "", False, "fd_cnn of the images of a class", "diagnostic"
)
FID = MetricSpec("fid", "", False, "Frechet Inception distance")
FID_CLEAN = MetricSpec("fid_clean", "", False, "the same behind clean-fid's resize")
FD_DINOV2 = MetricSpec("fd_dinov2", "", False, "Frechet distance, features of DINOv2; RGB only")
INCEPTION_SCORE = MetricSpec(
    "inception_score", "", True, "Inception score; legacy, ignores real images"
)


@dataclass(frozen=True)
class FeatureMetrics:
    """Metrics that are computed together from sets of images in a feature space.

    Attributes:
        metrics: The metrics, in the order of ``values``.
        between: Names of the sets; the first one is evaluated against the others.
        values: Computes the metrics from equally large sets and a seed.
        more_than: Every set must have more images than this.
        part: Selects the part of a set that is used.
    """

    metrics: tuple[MetricSpec, ...]
    between: tuple[str, ...]
    values: Callable[[Sequence[FeatureSet], int], Sequence[float]]
    more_than: int
    part: Callable[[FeatureSet], FeatureSet] = lambda images: images


def _frechet(sets: Sequence[FeatureSet], seed: int) -> tuple[float]:
    judged, real = (each.moments for each in sets)
    return (frechet_distance(judged.mean, judged.covariance, real.mean, real.covariance),)


def _at_infinity(sets: Sequence[FeatureSet], seed: int) -> tuple[float]:
    synthetic, real = sets
    rng = np.random.default_rng(seed)
    return (frechet_at_infinity(synthetic.features, real.moments, rng),)


def _kernel(sets: Sequence[FeatureSet], seed: int) -> tuple[float]:
    synthetic, real = sets
    size = min(KID_SIZE, len(real))
    first, second = synthetic.features, real.features
    return (kernel_distance(first, second, KID_SUBSETS, size, seed % 2**32),)


def _prdc(sets: Sequence[FeatureSet], seed: int) -> Sequence[float]:
    synthetic, real = sets
    return prdc(real.features, real.radii, synthetic.features, synthetic.radii, NEIGHBOURS)


def _inception_score(sets: Sequence[FeatureSet], seed: int) -> tuple[float]:
    """Compute the mean over splits by torch-fidelity: Salimans et al. 2016, section 4."""
    (synthetic,) = sets
    assert synthetic.head is not None
    logits = torch.from_numpy(synthetic.features @ synthetic.head)
    scores = isc_features_to_metric(logits, INCEPTION_SCORE_SPLITS, rng_seed=seed % 2**32)
    return (scores["inception_score_mean"],)


def _frechet_distances(metric: MetricSpec, dimension: int) -> tuple[FeatureMetrics, ...]:
    return tuple(
        FeatureMetrics((metric,), (SYNTHETIC, real), _frechet, more_than=dimension)
        for real in (TEST, TRAIN)
    )


def _family(frechet: MetricSpec, suffix: str, dimension: int) -> tuple[FeatureMetrics, ...]:
    """Return the metrics of the spaces of the CNN and of Inception."""
    where = f"in the features of {frechet.name}"
    infinity = MetricSpec(f"{frechet.name}_infinity", "", False, f"{frechet.name} at n = infinity")
    kid = MetricSpec(f"kid{suffix}", "", False, f"kernel distance (MMD^2) {where}")
    shares = (
        MetricSpec(
            f"precision{suffix}", "", True, f"share of synthetic images near real ones {where}"
        ),
        MetricSpec(
            f"recall{suffix}", "", True, f"share of real images near synthetic ones {where}"
        ),
        MetricSpec(
            f"density{suffix}", "", True, f"real images around synthetic ones, 1 if alike {where}"
        ),
        MetricSpec(
            f"coverage{suffix}",
            "",
            True,
            f"share of real images with a synthetic neighbour {where}",
        ),
    )
    return _frechet_distances(frechet, dimension) + tuple(
        comparison
        for real in (TEST, TRAIN)
        for comparison in (
            # otherwise no smaller subset would have a covariance
            FeatureMetrics((infinity,), (SYNTHETIC, real), _at_infinity, more_than=2 * dimension),
            FeatureMetrics((kid,), (SYNTHETIC, real), _kernel, more_than=1),
            FeatureMetrics(
                shares,
                (SYNTHETIC, real),
                _prdc,
                more_than=NEIGHBOURS,
                part=lambda images: images.neighbourhood,
            ),
        )
    )


IN_CNN = (
    *_family(FD_CNN, "_cnn", CNN_FEATURES),
    FeatureMetrics((FD_CNN_FLOOR,), (TRAIN, TEST), _frechet, more_than=CNN_FEATURES),
)
IN_INCEPTION = (
    *_family(FID, "", INCEPTION_FEATURES),
    FeatureMetrics(
        (INCEPTION_SCORE,), (SYNTHETIC,), _inception_score, more_than=INCEPTION_SCORE_SPLITS - 1
    ),
)
IN_CLEAN_INCEPTION = _frechet_distances(FID_CLEAN, INCEPTION_FEATURES)
IN_DINOV2 = _frechet_distances(FD_DINOV2, DINOV2_FEATURES)


def class_distance(label: int) -> FeatureMetrics:
    """Return ``fd_cnn`` of one class."""
    name = FD_CNN_CLASS.name.replace("*", str(label))
    return FeatureMetrics(
        (replace(FD_CNN_CLASS, name=name),),
        (SYNTHETIC, TEST),
        _frechet,
        more_than=CNN_FEATURES,
        part=lambda images: images[images.labels == label],
    )
