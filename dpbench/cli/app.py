"""What all commands have in common: the application, the consoles, and how commands end."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import dpbench
from dpbench.errors import INTERRUPTED, UNHEARD, RunFailed, Unheard, UserError

out, err = Console(), Console(stderr=True)
app = typer.Typer(
    name="dpbench",
    help="A benchmark of differentially private image generation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
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
    """Turn how a command ends into one line and an exit code."""
    try:
        yield
    except typer.Exit:
        raise
    except Unheard:
        raise typer.Exit(UNHEARD) from None
    except KeyboardInterrupt:
        from dpbench.launch import is_first

        if not is_first():
            raise typer.Exit(UNHEARD) from None
        err.print(interrupted)
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, UserError | RunFailed):
            say_error(str(error))
        else:
            say_error(f"{type(error).__name__}: {error} (--debug shows where)")
        raise typer.Exit(2 if isinstance(error, UserError) else 1) from None


def say_error(message: str) -> None:
    """Print a message on standard error, in one line however many it has."""
    line = " ".join(message.split())
    err.print(f"[bold red]Error:[/] {escape(line)}", soft_wrap=True, highlight=False)


def print_json(content: Any) -> None:
    """Print content on standard output as strict JSON."""
    from dpbench.record import to_json

    typer.echo(json.dumps(to_json(content), indent=2, allow_nan=False))


def new_table(title: str) -> Table:
    """An empty table in the style of them all."""
    return Table(
        title=f"\n[bold]{escape(title)}[/]",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
