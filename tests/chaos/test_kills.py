"""Signals at random moments of a run's whole life: the same command then ends as if none came."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dpbench.training import loop
from tests.support.chaos import DEADLINE, TRACEBACK, Place, Running, start
from tests.support.chaos_runs import COMMAND, Lab, continued, same, stage_of

Property = Callable[[str, object], None]

pytestmark = [pytest.mark.chaos("kills")]

SAID = re.compile(r"(?i)continues|interrupted|terminated|hung up|hangup")
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
COUNTS = {
    "KILL": 36,
    "KILL-every-step": 16,  # with a checkpoint after every step
    "KILL-cold": 6,  # with an empty cache
    "INT": 12,
    "TERM": 10,
    "HUP": 10,
    "STOP": 4,
}
REPORTS, REAL = 2, 4
SHORT = ("KILL-every-step-0", "TERM-0")  # also among the slow tests


def named() -> list[object]:
    names = [f"{kind}-{index}" for kind, count in COUNTS.items() for index in range(count)]
    return [pytest.param(name, marks=pytest.mark.slow) if name in SHORT else name for name in names]


def save_every_step() -> None:
    loop.SECONDS_BETWEEN_CHECKPOINTS = 0.0


def signal_after(running: Running, seconds: float, number: int) -> bool:
    """Send a signal after some seconds of CPU; return whether there was still a process."""
    deadline = time.monotonic() + DEADLINE
    while not running.begun() or running.child.cpu() < seconds:
        assert time.monotonic() < deadline, "the run hangs before it gets a signal"
        time.sleep(0.002)
    if running.child.poll() is not None:
        return False
    os.kill(running.child.pid, number)
    return True


def assert_ended_in_words(number: int, code: int, err: str) -> None:
    """A signal that can be handled ends a run with a line and the exit code of its own."""
    assert TRACEBACK not in err, err
    if number in CODES and code != 0:
        assert code == CODES[number], f"exit {code}: {err}"
        assert SAID.search(err.strip().splitlines()[-1]), f"it ended without a word: {err}"


@pytest.mark.parametrize("kind", named())
def test_a_run_that_gets_a_signal_continues_to_the_same_bytes(
    kind: str,
    place: Place,
    lab: Lab,
    rng: random.Random,
    record_property: Property,
) -> None:
    if "cold" not in kind:
        lab.warm(place)
    number = signal.Signals[f"SIG{kind.split('-')[0]}"]
    moment = rng.uniform(0, lab.whole.seconds * (2 if "cold" in kind else 1))
    before = save_every_step if "every-step" in kind else lambda: None
    running = start(place, *COMMAND, before=before)
    while not signal_after(running, moment, number):
        running.end()  # it was over already, on a machine that is faster now
        moment *= rng.uniform(0.5, 1)
        shutil.rmtree(place.work / "here")
        running = start(place, *COMMAND, before=before)
    if number == signal.SIGSTOP:
        time.sleep(0.3)
        os.kill(running.child.pid, signal.SIGCONT)
    ended = running.end()
    record_property("detail", stage_of(place.work / "here"))
    if number == signal.SIGSTOP:
        assert ended.code == 0, str(ended)
    assert_ended_in_words(number, ended.code, ended.err)
    continued(place, lab.whole)


@pytest.mark.parametrize("index", range(REAL))
def test_so_does_a_process_of_its_own(
    index: int,
    place: Place,
    lab: Lab,
    rng: random.Random,
    record_property: Property,
) -> None:
    lab.warm(place)
    number = (signal.SIGKILL, *CODES)[index % 4]
    plugins = Path(__file__).parent.parent / "plugins"
    environment = {**os.environ, **place.environment(), "PYTHONPATH": str(plugins)}
    command = [sys.executable, "-m", "dpbench", *map(str, COMMAND)]
    with (place.root / "err").open("wb") as err:
        process = subprocess.Popen(
            command, cwd=place.work, env=environment, stdout=subprocess.DEVNULL, stderr=err
        )
    time.sleep(rng.uniform(0.5, 10))
    process.send_signal(number)
    code = process.wait(DEADLINE)
    text = (place.root / "err").read_text()
    record_property("detail", stage_of(place.work / "here"))
    assert_ended_in_words(number, code, text)
    continued(place, lab.whole)


@pytest.mark.parametrize("index", range(REPORTS))
def test_a_report_that_is_killed_is_made_again(
    index: int,
    place: Place,
    lab: Lab,
    rng: random.Random,
    record_property: Property,
) -> None:
    lab.started(place)
    command = ("report", "--runs-dir", ".", "--all", "--out")
    whole = start(place, *command, "whole")
    assert (ended := whole.end()).code == 0, str(ended)
    assert whole.child.usage is not None
    seconds = whole.child.usage.ru_utime + whole.child.usage.ru_stime
    running = start(place, *command, "killed")
    signal_after(running, rng.uniform(0, seconds), signal.SIGKILL)
    running.end()
    record_property("detail", "report")
    assert (ended := start(place, *command, "killed").end()).code == 0, str(ended)
    assert tree(place.work / "killed") == tree(place.work / "whole")
    assert not (wrong := same(place.work / "here", lab.whole)), wrong


def tree(folder: Path) -> dict[str, bytes]:
    """Content of all files, and names of pictures."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): b"" if path.suffix in (".png", ".svg") else path.read_bytes()
        for path in files
    }
