"""Checks of the privacy core, shared by its tests and by the mutation matrix.

A check raises ``Detected`` where privacy is broken. Whatever else comes out of it, an ``assert``
included, means that it could not measure: a run that merely crashed has shown nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Detected(Exception):
    """Raised by a check whose claim does not hold."""


def expect(holds: bool, claim: str) -> None:
    """Raise ``Detected`` unless a claim about the code under test holds."""
    if not holds:
        raise Detected(f"does not hold: {claim}")


def expect_close(got: Tensor, want: Tensor, rtol: float, atol: float, claim: str) -> None:
    """Raise ``Detected`` unless each value is within ``atol + rtol * |want|`` of the wanted one."""
    expect(bool(torch.isclose(got, want, rtol=rtol, atol=atol).all()), claim)


def expect_refused(error: type[Exception], call: Callable[[], object]) -> str:
    """Raise ``Detected`` unless ``call`` raises ``error``; return the error's message."""
    try:
        call()
    except error as refusal:
        return str(refusal)
    raise Detected(f"no {error.__name__} was raised")
