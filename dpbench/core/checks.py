"""Range checks of hyper-parameters that many methods share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from dpbench.core.errors import UserError


def check_counts(parameters: object, *names: str) -> None:
    """Check that the named attributes are at least 1.

    Raises:
        UserError: An attribute is not.
    """
    _check(parameters, names, lambda value: value >= 1, "be at least 1")


def check_not_negative(parameters: object, *names: str) -> None:
    """Check that the named attributes are at least 0 and finite.

    Raises:
        UserError: An attribute is not.
    """
    _check(parameters, names, lambda value: 0 <= value < math.inf, "be at least 0 and finite")


def check_positive(parameters: object, *names: str) -> None:
    """Check that the named attributes are above 0 and finite.

    Raises:
        UserError: An attribute is not.
    """
    _check(parameters, names, lambda value: 0 < value < math.inf, "be above 0 and finite")


def check_shares(parameters: object, *names: str) -> None:
    """Check that the named attributes lie in [0, 1).

    Raises:
        UserError: An attribute does not.
    """
    _check(parameters, names, lambda value: 0 <= value < 1, "lie in [0, 1)")


def check_parts(parameters: object, *names: str) -> None:
    """Check that the named attributes lie in (0, 1).

    Raises:
        UserError: An attribute does not.
    """
    _check(parameters, names, lambda value: 0 < value < 1, "lie in (0, 1)")


def _check(
    parameters: object, names: Iterable[str], holds: Callable[[float], bool], must: str
) -> None:
    for name in names:
        if not holds(value := getattr(parameters, name)):
            raise UserError(f"{name} must {must}, got {value}")
