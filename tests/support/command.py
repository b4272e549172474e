"""The command line as tests call it, and the shortest run that there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PLUGINS = Path(__file__).parent.parent / "plugins"
# a budget this small is cheap to account for, and leaves samples that are mostly noise
TOY = ("run", "--method", "toy", "--dataset", "digits", "--profile", "smoke", "--eps", "0.001")


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code, standard output and standard error."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]
