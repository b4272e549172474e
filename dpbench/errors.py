"""The two ways a command ends badly, and nothing else."""

from __future__ import annotations

INTERRUPTED = 130  # exit code of a command that Ctrl-C ended
UNHEARD = 3  # exit code of a process that ends with ``Unheard``


class UserError(Exception):
    """The user's mistake: one line that says what is wrong and what to do (exit code 2)."""


class RunFailed(Exception):
    """A run or a check that failed through no mistake of the user's (exit code 1)."""


class Unheard(Exception):
    """This process of a run ends, and leaves it to another one to say why."""
