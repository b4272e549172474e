"""Detectors of the mutation matrix: each looks at the real path, and sees one kind of fault.

A detector raises ``Detected`` where privacy is broken, and nothing else counts: see
``tests.support.checks``.
"""

from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dpbench.core.images import Images
from dpbench.core.progress import Silent
from dpbench.core.registry import load
from dpbench.data.catalog import CATALOG
from dpbench.data.load import Dataset
from dpbench.data.load import load as load_dataset
from dpbench.privacy import epsilon as accountant
from dpbench.privacy import ledger
from dpbench.privacy.clipping import engine
from dpbench.privacy.replay.neighbours import neighbours
from dpbench.runs import execute
from dpbench.runs.check import replay
from dpbench.runs.folder import SAMPLES
from dpbench.runs.hyperparameters import resolve
from dpbench.runs.replayed_fit import Subject
from dpbench.runs.request import private_set_info
from tests.support import methods
from tests.support.checks import expect, runs
from tests.support.checks.accounting import check_golden
from tests.support.checks.clipping import case, check_against_autograd, check_physical_batches
from tests.support.checks.key import (
    check_noise_is_not_published,
    check_reproducible_noise_is_void_for_release,
)
from tests.support.checks.ledger import (
    check_budget,
    check_certificate,
    check_executed,
    check_own_events_only,
    check_plan,
    check_purposes,
    check_resume,
    check_spent_by_value,
    check_written_first,
    send,
)
from tests.support.checks.noise import check_average, check_noise, check_noise_is_secret
from tests.support.checks.ranks import check_ranks
from tests.support.checks.replay import expect_no_difference, replayed
from tests.support.checks.sampling import check_empty_batches, check_sampler
from tests.support.command import TOY, Command

TRAINS = "folded"  # the engine that trains networks
METHOD: type[methods.Honest] = methods.Honest  # what is replayed on a small set


@dataclass(frozen=True)
class Lab:
    """What mutants and detectors work with."""

    folder: Path
    patch: pytest.MonkeyPatch
    dpbench: Command
    toy: ModuleType


@dataclass(frozen=True)
class Detector:
    """A check of the real path.

    Attributes:
        name: What it looks at.
        check: Raises ``Detected`` where privacy is broken.
    """

    name: str
    check: Callable[[Lab], object]


# The core.

noise_statistics = Detector("noise statistics", lambda lab: check_noise())
noise_secrecy = Detector("noise against seed and key", lambda lab: check_noise_is_secret())
average = Detector("average against weights", lambda lab: check_average())
sampler_statistics = Detector("sampler statistics", lambda lab: check_sampler())
empty_batches = Detector("empty batches", lambda lab: check_empty_batches())
autograd = Detector(
    "naive autograd",
    lambda lab: check_against_autograd(engine(TRAINS), case("many layers", 8)),
)
physical_batches = Detector("physical batch sizes", lambda lab: check_physical_batches(lab.patch))
several_ranks = Detector("one process and several", lambda lab: check_ranks(lab.patch))
executed = Detector("executed against accounted", lambda lab: check_executed(lab.folder))
resumed = Detector(
    "the same after an interruption",
    lambda lab: check_executed(lab.folder, 3, send(signal.SIGINT)),
)
golden = Detector("golden epsilons", lambda lab: check_golden(accountant.epsilon, 732))


def _of_the_ledger(
    name: str, check: Callable[[type[ledger.PrivacyLedger], Path], None]
) -> Detector:
    return Detector(name, lambda lab: check(ledger.PrivacyLedger, lab.folder))


budget = _of_the_ledger("spending over budget", check_budget)
journal = _of_the_ledger("journal before release", check_written_first)
spending_again = _of_the_ledger("spending after a resume", check_resume)
purposes = _of_the_ledger("spending a purpose twice", check_purposes)
planned = _of_the_ledger("spending beside the plan", check_plan)
spent_by_value = _of_the_ledger("events that change", check_spent_by_value)
own_events_only = _of_the_ledger("events of other classes", check_own_events_only)
certificate = _of_the_ledger("certificate of a run under way", check_certificate)

# Neighbour replay.


def _replay_of_a_method(lab: Lab) -> None:
    expect_no_difference(replayed(METHOD(), "one removed", "white added", "NaN added"))


def _replay_of_registered(name: str, *settings: str) -> Detector:
    def check(lab: Lab) -> None:
        method = resolve(load("method", name), name, "smoke", "digits", 1.0, settings).method
        sets = neighbours(load_dataset("digits", None, Silent()).splits.train)
        chosen = [each for each in sets if each.name in ("D", "white added")]
        info = private_set_info(CATALOG["digits"])
        expect_no_difference(replay(Subject(method, info), chosen, Silent()))

    return Detector(f"neighbour replay of {name}", check)


neighbour_replay = Detector("neighbour replay", _replay_of_a_method)
replay_of_dpdm = _replay_of_registered("dpdm", "steps=1")
replay_of_class_mean = _replay_of_registered("class-mean")

# Whole runs.

key_attack = Detector(
    "attack on what is published",
    lambda lab: check_noise_is_not_published(lab.dpbench, lab.folder, lab.patch),
)
void_release = Detector(
    "attack on a reproducible run",
    lambda lab: check_reproducible_noise_is_void_for_release(lab.dpbench, lab.folder, lab.patch),
)


def _labels_of_samples(lab: Lab) -> None:
    """The labels of samples are the same for another set of private labels."""
    found = []
    for name, shift in (("D", 0), ("another", 1)):
        honest = execute.load

        def shifted(*arguments: Any, honest: Any = honest, shift: int = shift) -> Dataset:
            data = honest(*arguments)
            train = data.splits.train
            train = Images(train.pixels, (train.labels + shift) % data.info.classes)
            splits = dataclasses.replace(data.splits, train=train)
            return dataclasses.replace(data, splits=splits)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(execute, "load", shifted)
            assert lab.dpbench(*TOY, "--out", lab.folder / name).code == 0
        with np.load(lab.folder / name / SAMPLES) as arrays:
            found.append(arrays["labels"].tolist())
    expect(found[0] == found[1], "the labels of samples do not depend on private labels")


def _of_runs(name: str, check: runs.Check) -> Detector:
    return Detector(name, lambda lab: check(lab.dpbench, lab.toy, lab.folder))


two_private_sets = _of_runs(
    "a run that releases nothing, on two sets", runs.check_nothing_released_nothing_published
)
evaluations = _of_runs("evaluations beyond the plan", runs.check_evaluations_beyond_the_plan)
spending_of_a_resumed_run = _of_runs(
    "spending of a run that died", runs.check_spending_of_a_resumed_run
)
overwriting = _of_runs("noise of a run made anew", runs.check_overwriting)
labels_of_samples = Detector("labels of another private set", _labels_of_samples)


def _noise_of_a_resumed_run(lab: Lab) -> None:
    """A run that dies makes no release again with other noise, and no more than are paid for."""

    def die(count: int) -> None:
        if count == 3:
            raise MemoryError

    lab.toy.HOOKS["step"] = die
    with runs.noise_by_step() as drawn:
        assert lab.dpbench(*TOY, "--out", lab.folder / "run").code == 1
        assert sorted(drawn) == [0, 1]
        assert lab.dpbench(*TOY, "--out", lab.folder / "run").code == 0
    noises = {step: len(each) for step, each in drawn.items()}
    expect(noises == {0: 1, 1: 1, 2: 1, 3: 1}, "each release is made with one noise")
    (event,) = json.loads((lab.folder / "run" / "record.json").read_text())["privacy"]["events"]
    paid = event["released"] == event["steps"] == len(drawn)
    expect(paid, "each release is paid for")


noise_of_a_resumed_run = Detector("noise of a run that died", _noise_of_a_resumed_run)
