"""The judges of chaos see what they are for: each is shown a command that does the harm."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from tests.support import chaos
from tests.support.chaos import MEMORY, Place, run
from tests.support.chaos_faults import Calls, fill_up
from tests.support.chaos_hostile import harmless, load
from tests.support.chaos_runs import COMMAND, Lab, continued, refused

pytestmark = [pytest.mark.chaos]

QUICK = ("list", "profiles")


def escapes() -> None:
    os.write(2, b"\x1b[31m")


def breaks() -> None:
    os.write(2, chaos.TRACEBACK.encode())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("harm", "seen"),
    [
        (lambda place: place.executed.touch(), "code was executed"),
        (lambda place: (place.root / "a" / "escaped").touch(), "outside of its folders"),
        (lambda place: os.kill(os.getpid(), signal.SIGKILL), "exit -9"),
        (lambda place: signal.pause(), "it hangs"),
        (lambda place: escapes(), "control characters"),
        (lambda place: breaks(), "a traceback"),
    ],
    ids=["code", "outside", "crash", "hang", "escape", "traceback"],
)
def test_harm_is_seen(
    harm: Callable[[Place], object], seen: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    if seen == "it hangs":
        monkeypatch.setattr(chaos, "DEADLINE", 0.5)
    with pytest.raises(AssertionError, match=seen):
        harmless(place, QUICK, before=lambda: harm(place))


def test_memory_is_seen(place: Place) -> None:
    with pytest.raises(AssertionError, match="MB of memory"):
        harmless(place, QUICK, before=lambda: bytearray(b"x" * (MEMORY + (200 << 20))))


def test_what_does_no_harm_passes(place: Place) -> None:
    harmless(place, QUICK)
    harmless(place, load("nothing"))


def test_other_samples_and_a_lost_row_are_seen(place: Place, lab: Lab) -> None:
    lab.started(place)
    samples = place.work / "here" / "samples.npz"
    content = samples.read_bytes()
    samples.write_bytes(content[:-1] + bytes((content[-1] ^ 1,)))
    with pytest.raises(AssertionError, match="other samples"):
        continued(place, lab.whole)
    samples.write_bytes(content)
    record = place.work / "here" / "record.json"
    record.write_text(record.read_text().replace('"toy_mean"', '"toy_lost"'))
    with pytest.raises(AssertionError, match="was edited|measurements"):
        continued(place, lab.whole)


def test_a_disk_that_is_full_and_a_call_without_memory_end_the_run(place: Place, lab: Lab) -> None:
    lab.warm(place)
    ended = run(place, *COMMAND, before=lambda: fill_up(place.work, 100))
    refused(ended)
    assert "no space left" in ended.err.lower(), str(ended)
    refused(ended := run(place, *COMMAND, before=Calls(3000)))
    assert "memory" in ended.err.lower(), str(ended)
