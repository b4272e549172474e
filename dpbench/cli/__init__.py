"""The command line, the only package that prints.

``--help`` and ``list`` must start instantly, so a command is imported when it is asked for, and
imports torch, and whatever needs it, when it is called.
"""

from __future__ import annotations

import io
import sys

import typer

from dpbench.cli.app import app, say_error
from dpbench.core.signals import INTERRUPTED, interrupting


def main() -> None:
    """Run the command line.

    Exit codes: 0, 1 (failure), 2 (user error), 130, 143 or 129 (interrupted by SIGINT, SIGTERM or
    SIGHUP).
    """
    if isinstance(
        sys.stdout, io.TextIOWrapper
    ):  # a path may hold what the terminal has no sign for
        sys.stdout.reconfigure(errors="backslashreplace")
    with interrupting():
        sys.exit(_code())


def _code() -> int:
    try:
        code = app(prog_name="dpbench", standalone_mode=False)
    except Exception as error:
        # usage errors of typer, from whichever copy of click it uses
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message()
        if message.startswith("Usage:"):  # the help of a command that was given no arguments
            typer.echo(message, err=True)
        else:
            say_error(message)
        code = getattr(error, "exit_code", 2)
    if code in INTERRUPTED:  # typer was interrupted, before any command was called
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0
