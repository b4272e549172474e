"""What all commands share: the application, its consoles, tables and exit codes."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TextIO, cast

import typer
from rich import box
from rich.table import Table
from rich.text import Text

import dpbench
from dpbench.cli.commands import Commands
from dpbench.cli.plain import PlainConsole, PlainTable
from dpbench.cli.standard_error import Heedless
from dpbench.core.errors import UNHEARD, RunFailed, Unheard, UserError, described
from dpbench.core.signals import interruption_code
from dpbench.core.text import visible

# in a pipe a line is as long as it needs to be, so that grep finds what is in it
out = PlainConsole(width_in_pipes=10_000)
err = PlainConsole(file=cast(TextIO, Heedless()))
app = typer.Typer(
    name="dpbench",
    cls=Commands,
    help="A benchmark of differentially private image generation.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help wraps at any width, and starts in half the time
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(dpbench.__version__)
        raise typer.Exit


@contextmanager
def outcome(debug: bool, interrupted: str = "Interrupted.") -> Iterator[None]:
    """Translate the exceptions of a command into one line and an exit code."""
    try:
        yield
    except typer.Exit:
        raise
    except Unheard:
        raise typer.Exit(UNHEARD) from None
    except KeyboardInterrupt:
        from dpbench.parallel.launcher import is_first

        if not is_first():
            raise typer.Exit(UNHEARD) from None
        err.print(interrupted)
        # no typer.Exit: typer itself ends with one, and says nothing, where it is interrupted
        sys.exit(interruption_code())
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, UserError | RunFailed):
            say_error(str(error))
        else:
            say_error(f"{described(error)} (--debug shows where)")
        raise typer.Exit(2 if isinstance(error, UserError) else 1) from None


def say_error(message: str) -> None:
    """Print a message on standard error as a single line."""
    line = " ".join(message.split())
    err.print(Text.assemble(("Error:", "bold red"), " ", visible(line)), soft_wrap=True)


def print_json(content: Any) -> None:
    """Print content on standard output as strict JSON (no NaN or Infinity)."""
    from dpbench.core.canonical import to_json

    typer.echo(json.dumps(to_json(content), indent=2, allow_nan=False))


def new_table(title: str = "") -> Table:
    """An empty table in the common style; a title as wide as the table is wrapped."""
    return PlainTable(
        title=f"\n{visible(title)}" if title else None,
        title_style="bold italic",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
