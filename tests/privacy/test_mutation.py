"""The mutation matrix: every mutant is caught by its detector, and for the reason it is for.

A mutant replaces a real function, and its detector looks at what then comes through the real path.
The matrix fails where a detector misses its mutant, fires on the code as it is, or ends in anything
but ``Detected``: a mutant that merely crashes is not caught. ``pytest -m mutation`` ends with the
table. More twins of single functions stand beside the checks that catch them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dpbench.privacy.clipping import ENGINES, engine
from tests.support.checks import Detected
from tests.support.command import Command
from tests.support.detectors import Detector, Lab, autograd, key_attack, neighbour_replay
from tests.support.mutants import MUTANTS, Mutant
from tests.support.private import Gradients

pytestmark = pytest.mark.mutation

DETECTORS = {mutant.detector.name: mutant.detector for mutant in MUTANTS}
FIRST = {mutant.detector.name: mutant for mutant in reversed(MUTANTS)}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dpbench: Command, toy: ModuleType) -> Lab:
    return Lab(tmp_path, monkeypatch, dpbench, toy)


def expect_caught(mutant: Mutant, lab: Lab) -> None:
    """Fail where the mutant survives; let through all but ``Detected``."""
    mutant.apply(lab)
    with pytest.raises(Detected):
        mutant.detector.check(lab)


@pytest.mark.parametrize("detector", DETECTORS.values(), ids=DETECTORS)
def test_a_detector_is_silent_on_the_code_as_it_is(detector: Detector, lab: Lab) -> None:
    detector.check(lab)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_caught(
    mutant: Mutant, lab: Lab, record_property: Callable[[str, object], None]
) -> None:
    record_property("mutant", (mutant.name, mutant.breaks, mutant.detector.name))
    expect_caught(mutant, lab)


class Crash(TypeError):
    """What code raises that no longer fits its callers."""


def crashes(*_: object, **__: object) -> None:
    raise Crash("Crash")


@pytest.mark.parametrize("mutant", FIRST.values(), ids=FIRST)
def test_a_mutant_that_merely_crashes_is_not_caught(mutant: Mutant, lab: Lab) -> None:
    """One for each detector, in the place of a real mutant."""
    mutant.place(lab, crashes)
    with pytest.raises(Exception) as ended:  # noqa: B017 (whatever it is)
        mutant.detector.check(lab)
    assert not isinstance(ended.value, Detected), ended.value


def test_a_run_that_ends_for_another_reason_is_not_caught(lab: Lab) -> None:
    """Exit code 1, for a reason that has nothing to do with the key."""

    def sample(count: int) -> None:
        raise MemoryError

    lab.toy.HOOKS["sample"] = sample
    with pytest.raises(AssertionError):
        key_attack.check(lab)


@pytest.mark.parametrize("detector", [autograd, neighbour_replay], ids=lambda each: each.name)
def test_engines_are_looked_at_where_training_uses_them(detector: Detector, lab: Lab) -> None:
    """The detector does its work with the folded engine, and without those that do not train."""
    used, honest = lab.folder / "used", engine("folded")

    def seen(*arguments: Any) -> Gradients:
        with used.open("a") as file:  # perhaps in a fork
            file.write("x")
        return honest(*arguments)

    for name in ENGINES:
        if name not in ("folded", "loop"):
            lab.patch.setattr(f"dpbench.privacy.clipping.{name}.clipped_sum", crashes)
    lab.patch.setattr("dpbench.privacy.clipping.folded.clipped_sum", seen)
    detector.check(lab)
    assert used.stat().st_size > 1  # the first time, it was compared with autograd


def test_no_two_mutants_have_one_name() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
