"""Places that cannot be written: nothing is begun, or the place is not needed."""

from __future__ import annotations

import errno
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.support.command import TOY, Command

SAMPLES = {"images": np.zeros((4, 1, 16, 16), np.uint8), "labels": np.arange(4)}
SWEEP = ("sweep", "--methods", "toy", "--datasets", "digits", "--profile", "smoke")


@pytest.fixture(params=["a file", "read-only"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where nothing can be made: below a file, or in a folder that is read only."""
    place = tmp_path / "place"
    if request.param == "a file":
        place.touch()
        return place / "below"
    place.mkdir()
    touch, mkdir = Path.touch, Path.mkdir

    def refused(path: Path) -> None:
        if path.is_relative_to(place) or path.resolve().is_relative_to(place):
            raise OSError(errno.EROFS, "Read-only file system", str(path))

    def touched(self: Path, *given: object) -> None:
        refused(self)
        touch(self)

    def made(self: Path, *given: object, **named: object) -> None:
        if not self.is_dir():
            refused(self)
        mkdir(self, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "touch", touched)
    monkeypatch.setattr(Path, "mkdir", made)
    return place


@pytest.mark.parametrize(
    "command",
    [
        (*TOY, "--runs-dir"),
        (*TOY, "--out"),
        (*SWEEP, "--runs-dir"),
        ("evaluate", "samples.npz", "--dataset", "digits", "--evaluators", "toy", "--out"),
        ("report", "--out"),
        ("claims", "--out"),
        ("claims", "--run", "--runs-dir"),
    ],
    ids=lambda command: f"{command[0]} {command[-1]}",
)
def test_a_place_that_cannot_be_written_ends_a_command_before_it_begins(
    command: tuple[str, ...], dpbench: Command, toy: ModuleType, place: Path
) -> None:
    np.savez("samples.npz", **SAMPLES)
    before = sorted(Path().rglob("*"))
    given = place / "scores.json" if command[0] == "evaluate" else place
    ended = dpbench(*command, given)
    (line,) = ended.err.splitlines()[-1:]
    assert ended.code == 2 and line.startswith(f"Error: cannot write to {place}: "), ended.err
    assert "choose another --" in line
    assert toy.CALLS == {} and sorted(Path().rglob("*")) == before


def test_public_weights_need_a_cache(
    dpbench: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    ended = dpbench(
        *("pretrain", "--method", "dp-ddpm", "--dataset", "digits", "--profile", "smoke"),
        *("--public", "salt-and-pepper"),
    )
    assert ended.code == 2 and "XDG_CACHE_HOME" in ended.err.splitlines()[-1]


def test_a_run_does_without_a_cache(
    dpbench: Command, toy: ModuleType, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    ended = dpbench(*TOY, "--out", "here")
    assert ended.code == 0, ended.err
    assert sum("XDG_CACHE_HOME names another place" in line for line in ended.err.splitlines()) == 1


@pytest.mark.parametrize(
    "command",
    [("report", "--runs-dir"), ("report", "--evaluations"), ("claims", "--runs-dir")],
    ids=" ".join,
)
@pytest.mark.parametrize("name", ["typo", "samples.npz"])
def test_a_folder_that_is_not_there_is_named(
    command: tuple[str, ...], name: str, dpbench: Command
) -> None:
    np.savez("samples.npz", **SAMPLES)
    ended = dpbench(*command, name)
    assert (ended.code, ended.err) == (2, f"Error: there is no folder {name}\n")
    assert [file.name for file in Path().iterdir()] == ["samples.npz"]
