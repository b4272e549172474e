"""Metrics (names, units, directions) and measurements of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

# What a number is good for. A score says how good the samples are: methods are ranked and compared
# by it. A diagnostic explains a score, a bound is an end of an interval or the outcome of an audit,
# and a reference is the same for all methods.
MetricKind = Literal["score", "diagnostic", "bound", "reference"]


@dataclass(frozen=True)
class MetricSpec:
    """Name, unit and direction of a metric.

    Attributes:
        name: Id in records, e.g. ``cas_cnn``. A name that ends in ``*`` stands for a family of
            metrics, in which a class, configuration or size takes the place of the star.
        unit: ``""`` for a pure number, ``"%"``, ``"s"``, ...
        higher_is_better: Whether larger values are better.
        description: One-line description.
        kind: What the metric is good for; only scores are ranked and compared.
    """

    name: str
    unit: str
    higher_is_better: bool
    description: str
    kind: MetricKind = "score"


@dataclass(frozen=True)
class Measurement:
    """One number, with everything needed to interpret it.

    Attributes:
        metric: ``MetricSpec.name``.
        value: The number, or None if it could not be measured.
        unit: As in the metric's spec.
        higher_is_better: As in the metric's spec.
        n: Number of synthetic images that were measured.
        split: The real split that was used (``train``, ``validation``, ``test``) or ``""``.
        extractor: Id of the feature extractor or classifier, or ``""``.
        reason: Why there is no value; ``""`` exactly when there is one.
        n_real: Number of real images that were used.
        seed: Seed of the measurement itself (classifier initialisation, subsets).
        version: Version of the evaluator; ``""`` in records of schema version 1.
        kind: As in the metric's spec; ``""`` in records of schema version 1.

    Raises:
        ValueError: The value is not finite, or not exactly one of value and reason is given.
    """

    metric: str
    value: float | int | None
    unit: str
    higher_is_better: bool
    n: int
    split: str = ""
    extractor: str = ""
    reason: str = ""
    n_real: int = 0
    seed: int = 0
    version: str = ""
    kind: MetricKind | Literal[""] = ""

    def __post_init__(self) -> None:
        """Check that there is either a finite value or a reason for its absence."""
        if self.value is None and not self.reason:
            raise ValueError(f"{self.metric}: a missing value needs a reason")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"{self.metric}: {self.value} is not a measurement; give a reason")
        if self.value is not None and self.reason:
            raise ValueError(f"{self.metric}: has a value and a reason for having none")
