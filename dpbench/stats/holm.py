"""Adjustment of p-values for multiple tests."""

from __future__ import annotations

from collections.abc import Sequence


def adjust_by_holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values by Holm's step-down procedure (Holm 1979).

    Rejecting where the adjusted value is at most alpha keeps the probability of any false
    rejection at most alpha, whatever the dependence between the tests.

    Args:
        p_values: P-values of the tests of one family, each in [0, 1].

    Returns:
        Adjusted p-values in [0, 1], in the order given.

    Raises:
        ValueError: A p-value is not in [0, 1].
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"p-values must lie in [0, 1], got {list(p_values)}")
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for step, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        # adjusted values are monotone in the p-values
        largest = max(largest, min(1.0, (len(p_values) - step) * p_values[index]))
        adjusted[index] = largest
    return adjusted
