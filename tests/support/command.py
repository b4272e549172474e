"""The command line as tests call it, and the shortest run that there is."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from dpbench.core.seals import unsealed
from dpbench.core.state import from_bytes
from dpbench.runs.folder import CHECKPOINT, GRID, SAMPLES
from dpbench.runs.training_folder import BEGUN

PLUGINS = Path(__file__).parent.parent / "plugins"
# a budget this small is cheap to account for, and leaves samples that are mostly noise
TOY = ("run", "--method", "toy", "--dataset", "digits", "--profile", "smoke", "--eps", "0.001")


CONTINUES = "Interrupted: the same command continues where this one stopped.\n"


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code, standard output and standard error."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


def one_error(ended: Ended, code: int = 1) -> str:
    """The line in which a command failed."""
    line = ended.err.splitlines()[-1]
    assert ended.code == code and line.startswith("Error: "), ended.err
    assert ended.err.count("Error:") == line.count("Error:") and "Traceback" not in ended.err
    return line


def interrupt(count: int = 0) -> None:
    """Ctrl-C, as a hook of the toy."""
    signal.raise_signal(signal.SIGINT)


def interrupted_at_step(
    dpbench: Command, toy: ModuleType, command: Sequence[object], number: int
) -> None:
    """Run the toy until a step of its training, from 1, which it ends and saves."""
    toy.CALLS.clear()
    toy.HOOKS["step"] = lambda count: interrupt() if count == number else None
    assert dpbench(*command).code == 130
    toy.HOOKS.clear()
    toy.CALLS.clear()


def saved(stage: Path) -> dict[str, Any]:
    """What a stage of training saved in its file."""
    record = json.loads((stage.parents[1] / "record.json").read_text())
    content: dict[str, Any] = from_bytes(unsealed(stage.read_bytes(), record["resolved"][BEGUN]))
    return content


def contents(folder: Path) -> dict[str, bytes]:
    """What a run promises to be the same however often it was interrupted."""
    return {name: (folder / name).read_bytes() for name in (SAMPLES, CHECKPOINT, GRID)}


def at(number: int, action: Callable[[], None]) -> Callable[[int], None]:
    return lambda count: action() if count == number else None
