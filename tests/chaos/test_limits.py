"""Full disks and lack of memory: one line, and the same command then measures every row."""

from __future__ import annotations

import contextlib
import math
import os
import random
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.chaos import TRACEBACK, Place, limit_address_space, run, start
from tests.support.chaos_faults import Calls, can_mount, fill_up, no_space, on_a_small_disk
from tests.support.chaos_runs import COMMAND, PRETRAINED, Lab, continued, refused, same, whole_of

pytestmark = [pytest.mark.chaos("full disks and memory limits")]

SHORT = pytest.mark.slow


def geometric(rng: random.Random, low: float, high: float) -> int:
    return round(math.exp(rng.uniform(math.log(low), math.log(high))))


def trouble(place: Place, lab: Lab, before: Callable[[], object]) -> None:
    """Run with a trouble that may or may not end the run, and again without it."""
    ended = run(place, *COMMAND, before=before)
    if ended.code:
        refused(ended)
    continued(place, lab.whole)


@pytest.mark.parametrize("case", [pytest.param(0, marks=SHORT), *range(1, 6)])
def test_the_disk_of_the_runs_is_full(
    case: int, place: Place, lab: Lab, rng: random.Random
) -> None:
    lab.warm(place)
    room = geometric(rng, 100, 80_000)
    trouble(place, lab, lambda: fill_up(place.work, room))


@pytest.mark.parametrize("case", range(6))
def test_the_disk_of_the_cache_is_full(
    case: int, place: Place, lab: Lab, rng: random.Random
) -> None:
    room = (0, 100)[case] if case < 2 else geometric(rng, 1000, 100_000)
    trouble(place, lab, lambda: fill_up(place.cache, room))


@pytest.mark.parametrize("case", range(6))
def test_a_small_disk_that_is_really_full(
    case: int, place: Place, lab: Lab, rng: random.Random
) -> None:
    if not can_mount(place):
        pytest.skip("a small disk cannot be mounted here: that needs privileges")
    folder = place.work
    if case % 2:
        folder = place.cache
    else:
        lab.warm(place)
    first, second = on_a_small_disk(place, folder, geometric(rng, 4096, 100_000), COMMAND)
    if first.code:
        refused(first)
    assert second.code == 0, str(second)
    assert not (wrong := same(place.work / "here", lab.whole)), wrong


@pytest.mark.parametrize("case", range(2))
def test_the_disk_is_full_while_public_weights_are_trained(
    case: int, place: Place, lab: Lab, rng: random.Random, tmp_path: Path
) -> None:
    lab.warm(place)
    whole = Place(tmp_path / "whole").make()
    lab.warm(whole)
    assert (ended := run(whole, *PRETRAINED)).code == 0, str(ended)
    room = geometric(rng, 100, 50_000)
    ended = run(place, *PRETRAINED, before=lambda: fill_up(place.cache, room))
    if ended.code:
        refused(ended)
    continued(place, whole_of(whole.work / "here"), PRETRAINED)


@pytest.mark.parametrize(
    "full",
    [("err",), ("out",), ("out", "err"), pytest.param(("unread",), marks=SHORT)],
    ids="-".join,
)
def test_the_log_is_full(full: tuple[str, ...], place: Place, lab: Lab) -> None:
    lab.warm(place)
    if full == ("unread",):
        ended = run(place, *COMMAND, before=nobody_reads)
    else:
        files = {name: "/dev/full" for name in full}
        ended = start(place, *COMMAND, **files).end()  # type: ignore[arg-type]
    assert ended.code in (0, 1, 2) and not ended.hung, str(ended)
    assert TRACEBACK not in ended.err + ended.out, str(ended)
    continued(place, lab.whole)


def nobody_reads() -> None:
    """Have standard error be a pipe that is full and whose writer does not wait."""
    _, write = os.pipe()  # the reader stays open, and reads nothing
    os.set_blocking(write, False)
    os.dup2(write, 2)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, bytes(1000))


@pytest.mark.parametrize("case", range(7))
def test_memory_is_limited(case: int, place: Place, lab: Lab, rng: random.Random) -> None:
    lab.warm(place)
    extra = (1, 4)[case] << 20 if case < 2 else geometric(rng, 8 << 20, 400 << 20)
    trouble(place, lab, lambda: limit_address_space(extra))


@pytest.mark.parametrize("size", [2_000, 12_000, 45_000])
def test_files_are_limited(size: int, place: Place, lab: Lab) -> None:
    lab.warm(place)
    trouble(place, lab, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))


@pytest.mark.parametrize("case", range(6))
def test_any_call_finds_no_memory_or_no_space(
    case: int, place: Place, lab: Lab, rng: random.Random
) -> None:
    lab.warm(place)
    number = rng.randrange(1, 30_000)
    error = (MemoryError, no_space)[case % 2]
    trouble(place, lab, Calls(number, error))
