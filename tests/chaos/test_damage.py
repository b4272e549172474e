"""Damaged files: one clear line and nothing made worse, or the result of the whole files."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dpbench.training import loop
from tests.support.chaos import TRACEBACK, Place, run
from tests.support.chaos_runs import (
    COMMAND,
    PRETRAINED,
    TIMED,
    TOY_RUN,
    Lab,
    Whole,
    continued,
    refused,
    same,
    stage_of,
    whole_of,
)

pytestmark = [pytest.mark.chaos("damaged files")]

KINDS = ("truncated", "flipped", "emptied", "garbage", "folder", "another's")
# with a key of its own; the engine is named, because auto goes by a stopwatch
PRIVATE = (*TOY_RUN, "--evaluators", "toy", "--engine", "vmap")
COMPARED = (*TOY_RUN, "--evaluators", "model-selection", "--reproducible")


@dataclass(frozen=True)
class State:
    """A run at some moment, with its cache, and what the same command then gives."""

    place: Place
    command: tuple[object, ...]
    whole: Whole

    def copied(self, place: Place) -> Place:
        shutil.copytree(self.place.work, place.work, dirs_exist_ok=True)
        shutil.copytree(self.place.cache, place.cache, dirs_exist_ok=True)
        return place


def killed_at(point: str, number: int) -> Callable[[], None]:
    """Have the process kill itself when the toy gets there, with a checkpoint after every step."""

    def before() -> None:
        import toy

        toy.CALLS.clear()
        loop.SECONDS_BETWEEN_CHECKPOINTS = 0.0
        toy.HOOKS[point] = lambda count: (
            os.kill(os.getpid(), signal.SIGKILL) if count == number else None
        )

    return before


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory, lab: Lab) -> Iterator[Callable[[], Place]]:
    yield lambda: lab.warm(Place(tmp_path_factory.mktemp("state") / "place").make())


@pytest.fixture(scope="module")
def states(fresh: Callable[[], Place]) -> Callable[[str], State]:
    """States by name, each made when it is first asked for."""
    made: dict[str, State] = {}
    points = {"training": ("step", 20), "fitted": ("sample", 1), "sampled": ("evaluate", 1)}

    def state(name: str) -> State:
        if name not in made:
            made[name] = make(name)
        return made[name]

    def make(name: str) -> State:
        place, then = fresh(), fresh()
        commands = {"training": PRIVATE, "timed": TIMED, "compared": COMPARED}
        command = (commands | {"pretrained": PRETRAINED}).get(name, COMMAND)
        if name in points:
            ended = run(place, *command, before=killed_at(*points[name]))
            assert ended.code == -signal.SIGKILL, str(ended)
        elif name == "complete":
            assert (ended := run(place, *command)).code == 0, str(ended)
        elif name != "cached":  # fill the cache
            assert (ended := run(place, *command)).code == 0, str(ended)
            shutil.rmtree(place.work / "here")
        before = State(place, command, Whole(b"", {}, 0))
        before.copied(then)
        assert (ended := run(then, *command)).code == 0, str(ended)
        return State(place, command, whole_of(then.work / "here"))

    return state


def damage(file: Path, kind: str, rng: random.Random, other: Path) -> None:
    content = bytearray(file.read_bytes())
    if kind == "truncated":
        file.write_bytes(content[: rng.randrange(1, len(content))])
    elif kind == "flipped":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
    elif kind == "emptied":
        file.write_bytes(b"")
    elif kind == "garbage":
        file.write_bytes(rng.randbytes(len(content)))
    elif kind == "folder":
        file.unlink()
        file.mkdir()
    else:
        assert other.read_bytes() != content, "the other run's file is the same"
        shutil.copy(other, file)


def restore(file: Path, original: Path) -> None:
    if file.is_dir():
        shutil.rmtree(file)
    file.parent.mkdir(exist_ok=True)
    shutil.copy(original, file)


IN_RUNS = [
    *(("training", f"training/{name}", k) for name in ("ledger.json", "noise.key") for k in KINDS),
    *(("training", "training/training.stage", kind) for kind in KINDS),
    *(("fitted", "checkpoint.pt", kind) for kind in KINDS),
    *(("fitted", "record.json", kind) for kind in KINDS),
    *(("sampled", "samples.npz", kind) for kind in KINDS),
]
IN_CACHES = [
    *(("cached", "features", kind) for kind in KINDS[:4] + KINDS[5:]),
    *(("timed", "engines", kind) for kind in KINDS[:4]),
    *(("compared", "accuracies", kind) for kind in KINDS[:4]),
    *(("pretrained", "pretrained", kind) for kind in KINDS[:4] + KINDS[5:]),
]
KEPT = [
    *(("releases.json", kind) for kind in ("truncated", "flipped", "another's")),
    *(("evaluation-toy.npz", kind) for kind in ("truncated", "flipped", "another's")),
]


SHORT = ("features-truncated",)  # also among the slow tests


def parameters(found: list[tuple[str, ...]]) -> list[object]:
    names = ["-".join(case[-2:]) for case in found]
    return [
        pytest.param(*case, id=name, marks=[pytest.mark.slow] if name in SHORT else [])
        for name, case in zip(names, found, strict=True)
    ]


@pytest.mark.parametrize(("name", "file", "kind"), parameters(IN_RUNS))
def test_a_damaged_file_of_a_half_done_run(
    name: str,
    file: str,
    kind: str,
    place: Place,
    states: Callable[[str], State],
    fresh: Callable[[], Place],
    rng: random.Random,
) -> None:
    state = states(name)
    state.copied(place)
    other = state.place.work / "here" / file
    if kind == KINDS[-1]:  # of a run with another budget
        theirs = fresh()
        step = {"training": ("step", 15), "fitted": ("sample", 1), "sampled": ("evaluate", 1)}
        run(theirs, *state.command, "--eps", "0.002", before=killed_at(*step[name]))
        other = theirs.work / "here" / file
    damage(place.work / "here" / file, kind, rng, other)
    ended = run(place, *state.command)
    if ended.code == 0:
        assert not (wrong := same(place.work / "here", state.whole)), wrong
        return
    refused(ended)
    assert "here" in ended.last or "--overwrite" in ended.last, f"what to do? {ended.last}"
    restore(place.work / "here" / file, state.place.work / "here" / file)
    continued(place, state.whole, state.command)


@pytest.mark.parametrize(("name", "what", "kind"), parameters(IN_CACHES))
def test_a_damaged_file_of_the_cache(
    name: str,
    what: str,
    kind: str,
    place: Place,
    states: Callable[[str], State],
    rng: random.Random,
) -> None:
    state = states(name)
    state.copied(place)
    found = sorted(f for f in place.cache.rglob("*") if f.is_file() and what in str(f))
    assert found, f"there is no {what} in the cache"
    file = rng.choice(found)
    others = [f for f in found if f != file] or [
        f for f in sorted(place.cache.rglob("*")) if f.is_file() and f != file
    ]
    damage(file, kind, rng, others[0])
    ended = run(place, *state.command)
    if ended.code:
        refused(ended)
        restore(file, state.place.cache / file.relative_to(place.cache))
        assert (ended := run(place, *state.command)).code == 0, str(ended)
    if name == "timed":  # by a key of its own: other samples
        assert stage_of(place.work / "here") == "over"
    else:
        assert not (wrong := same(place.work / "here", state.whole)), wrong


@pytest.mark.parametrize(("file", "kind"), parameters(KEPT))
def test_a_damaged_file_of_a_complete_run(
    file: str,
    kind: str,
    place: Place,
    states: Callable[[str], State],
    rng: random.Random,
) -> None:
    state = states("complete")
    state.copied(place)
    kept = place.work / "here" / file
    other = place.work / "other"
    other.write_text(json.dumps({"mean image": 1})) if file.endswith("json") else shutil.copy(
        place.work / "here" / "samples.npz", other
    )
    damage(kept, kind, rng, other)
    ended = run(place, "verify", "here")
    assert ended.code in (1, 2), f"it was not noticed: {ended}"
    assert TRACEBACK not in ended.err + ended.out, str(ended)
    assert file in ended.out + ended.err, f"the file is not named: {ended}"
    restore(kept, state.place.work / "here" / file)
    continued(place, state.whole, state.command)
    assert (ended := run(place, "verify", "here")).code in (0, 1), str(ended)
