"""The metrics that reports treat specially, by name.

Records do not say which metrics are headlines or points of curves, and a report must not need the
evaluator that measured them. So they are named here, once, and a test compares the names with what
the evaluators declare.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from dpbench.core.files import safe_name
from dpbench.core.metrics import MetricKind

# columns of the overview, against real test images
HEADLINES = ("cas_logreg", "cas_mlp", "cas_cnn", "cas_predictor", "fid", "fd_cnn")
BEST_FIRST = "cas_cnn"
# what audits find: a lower bound of epsilon, and the interval of actual over claimed noise
AUDIT_EPSILON = "audit_epsilon_lower"
AUDIT_NOISE_LOW, AUDIT_NOISE_HIGH = "audit_sigma_ratio_low", "audit_sigma_ratio_high"
# what the lower bound could be at best
AUDIT_CEILING = "audit_epsilon_ceiling"

# by patterns of names, of which the first that fits holds; what fits none is a score
_KINDS: tuple[tuple[MetricKind, tuple[str, ...]], ...] = (
    ("reference", ("*_floor", "authpct_*_real", "realism_accuracy", "scaling_cas_real_n*")),
    ("reference", ("model_selection_ceiling_*", "model_selection_real_*", "train_copies_real")),
    ("reference", ("model_selection_reseeded_*",)),
    ("bound", ("audit_*", "*_low", "*_high")),
    ("diagnostic", ("cas_collapsed", "*_class[0-9]*", "authpct_*", "train_closer_*", "realism_*")),
    ("diagnostic", ("model_selection_synthetic_*", "model_selection_transfer_*", "train_copies")),
    ("diagnostic", ("model_selection_*_within_*", "model_selection_*_rank")),
)
# what is measured together, by patterns of names, of which the first that fits holds
_GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("audit of the noise", ("audit_*",)),
    ("accuracy of the method's own classifier", ("cas_predictor",)),
    ("accuracy of classifiers trained on samples", ("cas_*",)),
    ("distances and neighbours", ("fid*", "fd_*", "kid*", "inception_score")),
    ("distances and neighbours", ("precision*", "recall*", "density*", "coverage*")),
    ("copies and near copies of train images", ("train_copies*", "authpct_*", "train_closer_*")),
    ("model selection on samples", ("model_selection_*",)),
    ("private or public, to a discriminator", ("realism_*",)),
    ("accuracy by the number of samples", ("scaling_*",)),
)
# smallest and largest value that a metric can have; what fits no pattern goes by its unit
_RANGES: tuple[tuple[tuple[float, float], tuple[str, ...]], ...] = (
    ((0.0, 1.0), ("precision*", "recall*", "coverage*")),
    ((-1.0, 1.0), ("*_spearman*", "*_kendall*")),
    ((1.0, math.inf), ("inception_score", "model_selection_*_rank")),
    ((0.0, math.inf), ("fid*", "fd_*", "kid*", "density*", "audit_*", "cas_collapsed")),
    ((0.0, math.inf), ("train_copies*",)),
)
_RANGES_OF_UNITS = {"%": (0.0, 100.0), "s": (0.0, math.inf)}


@dataclass(frozen=True)
class Curve:
    """Metrics that are read together, as a curve: they have a CSV and a figure of their own.

    Attributes:
        suffix: Ends the names of its files, after the data set's name.
        prefixes: Beginnings of the names of its metrics.
    """

    suffix: str
    prefixes: tuple[str, ...]

    @property
    def title(self) -> str:
        """Its name in words."""
        return self.suffix[1:].replace("_", " ")

    def figure(self, dataset: str) -> str:
        """Path of its figure, relative to the leaderboards' folder."""
        return f"figures/{safe_name(dataset)}{self.suffix}.png"


# trained on / tested on: synthetic / synthetic, synthetic / real, real / real, and real / real
# again with other seeds; the rest of a metric's name is the configuration
SYNTHETIC, TRANSFER, REAL, RESEEDED = (
    f"model_selection_{kind}_" for kind in ("synthetic", "transfer", "real", "reseeded")
)
MODEL_SELECTION = Curve(".model_selection", (SYNTHETIC, TRANSFER, REAL, RESEEDED))
# rank correlations of the two accuracies that a configuration has in each setting
SPEARMAN_A, SPEARMAN_B = "model_selection_a_spearman", "model_selection_b_spearman"
# the rest of a metric's name is the number of images trained on
ON_SYNTHETIC, ENSEMBLE, ON_REAL = "scaling_cas_n", "scaling_cas_ensemble_n", "scaling_cas_real_n"
SCALING = Curve(".scaling", (ON_SYNTHETIC, ENSEMBLE, ON_REAL))
CURVES = (MODEL_SELECTION, SCALING)


def curve_of(metric: str) -> Curve | None:
    """Return the curve that a metric is a point of; None for a metric that stands alone."""
    for curve in CURVES:
        if metric.startswith(curve.prefixes):
            return curve
    return None


def kind_of(metric: str) -> MetricKind:
    """The kind of a metric, for records of schema version 1, which do not say it."""
    for kind, patterns in _KINDS:
        if _fits(metric, patterns):
            return kind
    return "score"


def group_of(metric: str) -> str:
    """What a metric is measured together with; ``""`` for a third party's."""
    return next((group for group, patterns in _GROUPS if _fits(metric, patterns)), "")


def range_of(metric: str, unit: str, values: Iterable[float]) -> tuple[float, float]:
    """The smallest and the largest value that a metric can have.

    Args:
        metric: Name of the metric.
        unit: Its unit.
        values: Values that were measured. An estimate may leave the range of what it estimates, as
            that of a kernel distance does near 0; the range is then not that of the mean either.

    Returns:
        The ends of the range, infinite where there is none or a value lies outside.
    """
    ranges = (ends for ends, patterns in _RANGES if _fits(metric, patterns))
    low, high = next(ranges, _RANGES_OF_UNITS.get(unit, (-math.inf, math.inf)))
    measured = list(values)
    return (
        low if min(measured, default=low) >= low else -math.inf,
        high if max(measured, default=high) <= high else math.inf,
    )


def _fits(metric: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(metric, pattern) for pattern in patterns)
