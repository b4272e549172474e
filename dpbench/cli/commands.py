"""The commands by name: each is imported, and its options are read, when it is asked for."""

from __future__ import annotations

import importlib
from typing import Any

import typer
from typer.core import TyperGroup

# function, or application of several, in a module of this package; in the order of --help
_PLACES = {
    place.split(".")[1].removesuffix("_"): place
    for place in (
        *("run.run", "sweep.sweep", "pretrain.pretrain", "evaluate.evaluate", "audit.audit"),
        *("show.show", "compare.compare", "report.report", "verify.verify", "release.release"),
        *("listing.list_", "doctor.doctor", "check.check", "claims.claims", "bench.bench"),
    )
}


class Commands(TyperGroup):
    """All commands of dpbench."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names, in the order of ``--help``."""
        return list(_PLACES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command; None if there is none of this name."""
        # of all, typer suggests one whose name is close
        for name in [cmd_name] if cmd_name in _PLACES else _PLACES:
            if name not in self.commands:
                self.add_command(_made(name), name)
        return super().get_command(ctx, cmd_name)


def _made(name: str) -> Any:
    module, attribute = _PLACES[name].split(".")
    found = getattr(importlib.import_module(f"dpbench.cli.{module}"), attribute)
    if isinstance(found, typer.Typer):
        return typer.main.get_command(found)
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name)(found)
    return typer.main.get_command(alone)
