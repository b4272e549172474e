"""The two ways a command ends badly, and what to say of a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

INTERRUPTED = 130  # exit code of a command that Ctrl-C ended
UNHEARD = 3  # exit code of a process that ends with ``Unheard``


class UserError(Exception):
    """The user's mistake: one line that says what is wrong and what to do (exit code 2)."""


class RunFailed(Exception):
    """A run or a check that failed through no mistake of the user's (exit code 1)."""


class Unheard(Exception):
    """This process of a run ends, and leaves it to another one to say why."""


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is not known, with the nearest one that is."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"There are {', '.join(known)}."
    return f"Unknown {what} {name!r}. {hint} See `dpbench list {what}s`"


def described(error: Exception) -> str:
    """An error in one line, with its type."""
    return " ".join(f"{type(error).__name__}: {error}".split())
