"""Methods that cheat, as third parties' plugins: what catches each, and what nothing catches."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from dpbench.core.images import Images
from dpbench.privacy.replay.neighbours import RESUMED, Neighbour, neighbours
from dpbench.runs import check as checking
from tests.support.cheats import CHEATS, HONEST, OneSum, Row, table
from tests.support.command import Command, Ended

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"
# an image removed for what counts images, strangers for all else
SETS = ("D", RESUMED, "one removed", "only strangers")

Tried = Callable[[str, type[OneSum], tuple[str, ...]], Ended]


@pytest.fixture
def tried(dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Tried:
    """Gives a command a plugin; `dpbench check` looks at few sets of few images."""

    def few(images: Images) -> list[Neighbour]:
        return [each for each in neighbours(images[:200]) if each.name in SETS]

    def command(name: str, method: type[OneSum], options: tuple[str, ...]) -> Ended:
        monkeypatch.setattr(checking, "neighbours", few)
        monkeypatch.setattr(toy, "Toy", method)
        common = ("--dataset", "digits", *(options or ("--profile", "smoke")))
        if name == "check":
            return dpbench(name, "toy", "--json", *common)
        return dpbench(name, "--method", "toy", *common)

    return command


def said(ended: Ended) -> str:
    """What a command finds fault with: its error, and what differs where."""
    found = json.loads(ended.out) if ended.out.startswith("{") else {}
    rows = [each for each in found.get("comparisons", ()) if not each["ok"]]
    return "\n".join([*(f"{row['neighbour']}: {row['purpose']}" for row in rows), ended.err])


CAUGHT = [(row, command) for row in CHEATS for command in row.caught]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "command"), CAUGHT, ids=[f"{row.cheat.__name__}-{command}" for row, command in CAUGHT]
)
def test_a_method_that_cheats_is_caught(row: Row, command: str, tried: Tried) -> None:
    ended = tried(command, row.cheat, row.options)
    assert ended.code in (1, 2) and row.caught[command] in said(ended)
    assert "Traceback" not in ended.err


INVISIBLE = [row.cheat for row in CHEATS if not row.caught]


@pytest.mark.slow
@pytest.mark.parametrize("method", [*HONEST, *INVISIBLE], ids=lambda method: method.__name__)
def test_nothing_is_said_of_an_honest_method_nor_of_what_cannot_be_seen(
    method: type[OneSum], tried: Tried
) -> None:
    assert tried("check", method, ()).code == 0


def test_the_table_in_the_documentation_is_this_one() -> None:
    assert table() in CONTRIBUTING.read_text()
