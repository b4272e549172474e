"""Metrics and measurements: names, units and directions stated once."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class MetricSpec:
    """What a metric is called and how to read it.

    Attributes:
        name: Its id in records, e.g. ``cas_cnn``. A name that ends in a star stands for one metric
            for each class, configuration or size, with its label, name or number in place of it.
        unit: ``""`` for a pure number, ``"%"``, ``"s"``, ...
        higher_is_better: Which way is up.
        description: One line for people.
    """

    name: str
    unit: str
    higher_is_better: bool
    description: str


@dataclass(frozen=True)
class Measurement:
    """One number, with all that is needed to know what it means.

    Attributes:
        metric: ``MetricSpec.name``.
        value: The number, or None where it could not be had.
        unit: As in the metric's spec.
        higher_is_better: As in the metric's spec.
        n: Number of synthetic images it was computed on.
        split: The real split it read (``train``, ``validation``, ``test``) or ``""``.
        extractor: Id of the feature extractor or classifier, or ``""``.
        reason: Why there is no value; ``""`` exactly when there is one.
        n_real: Number of real images it was computed on.
        seed: Seed of the measurement itself (classifier initialisation, subsets).

    Raises:
        ValueError: A value that is not finite, or a missing value without a reason.
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

    def __post_init__(self) -> None:
        """Hold that a value is a finite number or comes with a reason for its absence."""
        if self.value is None and not self.reason:
            raise ValueError(f"{self.metric}: a missing value needs a reason")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"{self.metric}: {self.value} is not a measurement; give a reason")
        if self.value is not None and self.reason:
            raise ValueError(f"{self.metric}: has a value and a reason for having none")
