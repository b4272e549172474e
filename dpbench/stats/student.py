"""Means with standard errors, and their intervals and p-values by Student's t."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import t as student_t


@dataclass(frozen=True)
class MeanEstimate:
    """A mean or a difference of means, with its standard error.

    Attributes:
        value: The mean, in the unit of what was averaged.
        error: Its standard error.
        degrees: Degrees of freedom of the error, at least 1; infinite if the error is known.
    """

    value: float
    error: float
    degrees: float

    @classmethod
    def of(cls, values: Sequence[float]) -> MeanEstimate:
        """Estimate the mean of two or more independent, identically distributed numbers."""
        error = statistics.stdev(values) / math.sqrt(len(values))
        return cls(statistics.fmean(values), error, len(values) - 1)

    @property
    def varies(self) -> bool:
        """Whether there is any variation, without which nothing is known of the error."""
        return self.error > 1e-12 * abs(self.value)

    def interval(self, confidence: float) -> tuple[float, float]:
        """Lower and upper end of the two-sided interval."""
        half = float(student_t.ppf((1 + confidence) / 2, self.degrees)) * self.error
        return _rounded(self.value - half), _rounded(self.value + half)

    def p_value(self, null: float = 0.0) -> float:
        """Two-sided p-value of the hypothesis that the true value is ``null``.

        Without variation it is 1: numbers that happen to be equal are no certainty.
        """
        distance = abs(self.value - null)
        if not distance or not self.varies:
            return 1.0
        statistic = distance / self.error
        return _rounded(2 * float(student_t.sf(statistic, self.degrees)))


def _rounded(value: float) -> float:
    """Round to six digits: further ones differ between machines."""
    return float(f"{value:.6g}")
