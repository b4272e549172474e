"""Checks that many parts share: ranges of hyper-parameters, and names that records will hold."""

from __future__ import annotations

import math
import unicodedata
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


def check_name(name: str, what: str) -> None:
    """Check that a name can be written to records and shown in a terminal.

    Args:
        name: A name that the user gave, or that a file or folder has.
        what: What has that name, for the message.

    Raises:
        UserError: The name is no UTF-8, or has control characters.
    """
    kinds = {unicodedata.category(letter) for letter in name}
    if "Cs" in kinds:  # how Python reads bytes that are no UTF-8
        raise UserError(f"the name of {what}, {name!a}, is no UTF-8 and cannot be kept: rename it")
    if "Cc" in kinds:
        raise UserError(f"the name of {what}, {name!a}, has control characters: rename it")


def _check(
    parameters: object, names: Iterable[str], holds: Callable[[float], bool], must: str
) -> None:
    for name in names:
        if not holds(value := getattr(parameters, name)):
            raise UserError(f"{name} must {must}, got {value}")
