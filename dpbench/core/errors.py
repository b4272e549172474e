"""Errors that end a command, and the wording of common messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

INTERRUPTED = 130  # exit code of a command that Ctrl-C ended
UNHEARD = 3  # exit code of a rank that ends with ``Unheard``


class UserError(Exception):
    """A mistake of the user's: one line that says what is wrong and what to do (exit code 2)."""


class Unavailable(UserError):
    """Something that a user may supply later, such as a file of weights or a package, is not here.

    What an evaluator says of it is a status: the evaluator is tried again when it may be there.
    """


class RunFailed(Exception):
    """A run or a check that failed through no mistake of the user's (exit code 1)."""


class Unheard(Exception):
    """Raised on ranks that exit because another rank failed; that rank reports the error."""


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """The message for an unknown name; suggests the closest known one."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"There are {', '.join(known)}."
    return f"Unknown {what} {name!r}. {hint} See `dpbench list {what}s`"


def described(error: Exception) -> str:
    """The type and message of an error, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
