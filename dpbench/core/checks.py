"""Checks of hyper-parameters that hold for many methods: one line says what is wrong."""

from __future__ import annotations

import math

from dpbench.core.errors import UserError


def check_counts(of: object, *names: str) -> None:
    """Hold that attributes are at least 1.

    Raises:
        UserError: One is not.
    """
    for name in names:
        if getattr(of, name) < 1:
            raise UserError(f"{name} must be at least 1, got {getattr(of, name)}")


def check_not_negative(of: object, *names: str) -> None:
    """Hold that attributes are at least 0 and finite.

    Raises:
        UserError: One is not.
    """
    for name in names:
        if not 0 <= getattr(of, name) < math.inf:
            raise UserError(f"{name} must be at least 0 and finite, got {getattr(of, name)}")


def check_positive(of: object, *names: str) -> None:
    """Hold that attributes are above 0 and finite.

    Raises:
        UserError: One is not.
    """
    for name in names:
        if not 0 < getattr(of, name) < math.inf:
            raise UserError(f"{name} must be above 0 and finite, got {getattr(of, name)}")


def check_shares(of: object, *names: str) -> None:
    """Hold that attributes lie in [0, 1).

    Raises:
        UserError: One does not.
    """
    for name in names:
        if not 0 <= getattr(of, name) < 1:
            raise UserError(f"{name} must lie in [0, 1), got {getattr(of, name)}")


def check_parts(of: object, *names: str) -> None:
    """Hold that attributes lie in (0, 1).

    Raises:
        UserError: One does not.
    """
    for name in names:
        if not 0 < getattr(of, name) < 1:
            raise UserError(f"{name} must lie in (0, 1), got {getattr(of, name)}")
