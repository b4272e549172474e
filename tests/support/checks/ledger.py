"""Checks of a ledger, and that training does what its ledger accounts for."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from scipy import stats

from dpbench.core.errors import RunFailed, UserError
from dpbench.core.streams import Streams
from dpbench.privacy.budget import Adjacency, PrivacyBudget
from dpbench.privacy.calibration import calibrated
from dpbench.privacy.epsilon import epsilon
from dpbench.privacy.events import DPSGDEvent, GaussianEvent, Loss, event_from_json
from dpbench.privacy.ledger import PrivacyLedger
from tests.support.checks import Detected, expect, expect_refused
from tests.support.private import (
    KEY,
    UNLIMITED,
    Coordinates,
    Gradients,
    OwnCoordinate,
    Steps,
    flat,
    some_images,
)

ONE = PrivacyBudget(1.0)
SUM, OTHER_SUM = GaussianEvent(6.0, 1.0, "sum"), GaussianEvent(7.0, 1.0, "other sum")
Ledger = type[PrivacyLedger]


# Spending.


def check_budget(kind: Ledger, folder: Path) -> None:
    """What the budget does not allow is refused, and leaves no trace."""
    journal = folder / "budget.json"
    ledger = kind(ONE, journal)
    expect_refused(UserError, lambda: ledger.spend(GaussianEvent(3.0, 1.0, "too much")))
    for over in (1.0005, 1.015):
        little = calibrated(GaussianEvent(1.0, 1.0, "a little too much"), PrivacyBudget(over))
        assert 1 < epsilon([little], ONE.delta) <= over
        expect_refused(UserError, lambda little=little: ledger.spend(little))  # type: ignore[misc]
    expect(not journal.exists(), "what is refused is not written down")
    ledger.spend(SUM)
    before = journal.read_text()
    expect_refused(UserError, lambda: ledger.spend(GaussianEvent(4.5, 1.0, "too much together")))
    expect(journal.read_text() == before, "what is refused is not written down")
    expect(ledger.events == (SUM,), "what is refused is not spent")
    expect(ledger.spent() == epsilon([SUM], ONE.delta) <= 1, "the ledger adds up what was spent")


def check_written_first(kind: Ledger, folder: Path) -> None:
    """The journal holds an event before the right to release it is given."""
    journal = folder / "first.json"
    ledger = kind(ONE, journal)
    for count, event in enumerate((SUM, OTHER_SUM), start=1):
        ledger.spend(event)
        expect(journal.exists(), "there is a journal before a release")
        written = [event_from_json(each) for each in json.loads(journal.read_text())]
        expect(len(written) == count, "every event is in the journal")
        expect(written[-1] == event, "the journal holds what was spent")


def check_resume(kind: Ledger, folder: Path) -> None:
    """An interrupted run may only spend again what it spent, in the same order."""
    journal = folder / "resume.json"
    first = kind(ONE, journal)
    first.spend(SUM)
    first.spend(OTHER_SUM)
    again = kind(ONE, journal)
    expect_refused(RunFailed, lambda: again.spend(GaussianEvent(60.0, 1.0, "sum")))
    expect_refused(RunFailed, lambda: again.spend(OTHER_SUM))
    again.spend(SUM)
    again.spend(OTHER_SUM)
    expect(again.events == first.events, "a resumed run spends what it spent before")
    expect(len(json.loads(journal.read_text())) == 2, "nothing is written down twice")


def check_purposes(kind: Ledger, folder: Path) -> None:
    """Noise is keyed by purpose, so no purpose is spent twice."""
    ledger = kind(PrivacyBudget(10.0))
    ledger.spend(SUM)
    expect_refused(RunFailed, lambda: ledger.spend(SUM))
    expect_refused(RunFailed, lambda: ledger.spend(DPSGDEvent(0.1, 9.0, 1.0, 2, "sum")))


def check_certificate(kind: Ledger, folder: Path) -> None:
    """Only a run whose every accounted release was made is certified, for all that it spent."""
    journal = folder / "certificate.json"
    ledger = kind(ONE, journal)
    training = ledger.spend(DPSGDEvent(0.1, 9.0, 1.0, 3, "weights"))
    for step in range(3):
        expect_refused(RunFailed, lambda: ledger.certificate(False))
        training.release(step)
    ledger.spend(SUM).release(0)
    certificate = ledger.certificate(False)
    total = epsilon(ledger.events, ONE.delta)
    expect(certificate["epsilon"] == total, "the certificate is for all that was spent")
    expect(
        (certificate["delta"], certificate["adjacency"]) == (1e-5, "add_remove"),
        "the certificate is for the budget's delta and adjacency",
    )
    released = [event["released"] for event in certificate["events"]]
    expect(released == [3, 1], "the certificate counts the releases")
    for shown, event in zip(certificate["events"], ledger.events, strict=True):
        parameters = {name: value for name, value in shown.items() if name != "released"}
        expect(event_from_json(parameters) == event, "the certificate shows what was spent")


def check_plan(kind: Ledger, folder: Path) -> None:
    """What is spent is what was planned: these events, in this order, and all of them."""
    for wrong in (OTHER_SUM, GaussianEvent(60.0, 1.0, "sum")):
        ledger = kind(ONE, folder / "refused.json", (SUM, OTHER_SUM))
        expect_refused(RunFailed, lambda ledger=ledger, wrong=wrong: ledger.spend(wrong))  # type: ignore[misc]
    expect(not (folder / "refused.json").exists(), "what is not planned is not written down")
    ledger = kind(ONE, folder / "planned.json", (SUM, OTHER_SUM))
    ledger.spend(SUM).release(0)
    expect_refused(RunFailed, lambda: ledger.certificate(False))
    ledger.spend(OTHER_SUM).release(0)
    expect_refused(RunFailed, lambda: ledger.spend(GaussianEvent(60.0, 1.0, "one more")))
    certificate = ledger.certificate(False)
    expect(len(certificate["events"]) == 2, "a run that spends as planned is certified")


def check_spent_by_value(kind: Ledger, folder: Path) -> None:
    """What happens to an event after it was spent changes neither account nor permission."""
    event = GaussianEvent(6.0, 1.0, "sum")
    ledger = kind(ONE, folder / "value.json")
    allowance = ledger.spend(event)
    object.__setattr__(event, "noise_multiplier", 0.0)
    object.__setattr__(event, "clipping_norm", 100.0)
    expect(allowance.event == SUM, "the permission is for what was spent")
    expect(ledger.events == (SUM,), "the account is of what was spent")


@dataclass(frozen=True)
class Cheap(GaussianEvent):
    """An event that states the cost of another one."""

    def loss(self, adjacency: Adjacency, interval: float) -> Loss:
        return GaussianEvent(1e6, 1.0, self.purpose).loss(adjacency, interval)


def check_own_events_only(kind: Ledger, folder: Path) -> None:
    """An event that computes its cost by itself is refused in a sentence."""
    ledger = kind(ONE, folder / "own.json")
    message = expect_refused(RunFailed, lambda: ledger.spend(Cheap(0.1, 1.0, "cheap")))
    expect("Cheap is not an event of dpbench" in message, "the refusal names the class")
    expect(ledger.events == (), "what is refused is not spent")


# What is executed is what is accounted for.

IMAGES, SPARE = 400, 400
CLIPPING_NORM = 0.7
EVENT = DPSGDEvent(0.3, 0.15, CLIPPING_NORM, 6, "weights")


class Interruptible:
    """A run of training in a folder, which can be interrupted and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.releases: list[Gradients] = []

    def start(self, interrupt: int = 0, how: Callable[[], None] = lambda: None) -> PrivacyLedger:
        """Train with fresh objects, as in a new process; call ``how`` in step ``interrupt``."""

        def after_step(made: int) -> None:
            if made == interrupt:
                how()

        ledger = PrivacyLedger(UNLIMITED, self.folder / "ledger.json")
        steps = Steps(
            Coordinates(IMAGES, SPARE),
            OwnCoordinate(slope=10.0),
            EVENT,
            nominal_size=IMAGES,
            after_step=after_step,
        )
        made: list[Gradients] = []
        try:
            steps.run(some_images(IMAGES, side=1), made, ledger, Streams(0, KEY), self.folder)
        finally:
            self.releases += made
        return ledger


def send(number: int) -> Callable[[], None]:
    """Makes a function that sends a signal to this process."""
    return lambda: os.kill(os.getpid(), number)


def check_executed(
    folder: Path, interrupt: int = 0, how: Callable[[], None] = lambda: None
) -> list[Gradients]:
    """Steps, sampling rate, noise and clipping norm as measured are those in the certificate."""
    run = Interruptible(folder)
    if interrupt:
        with pytest.raises(KeyboardInterrupt):
            run.start(interrupt, how)
        assert len(run.releases) == interrupt
    try:
        certificate = run.start().certificate(False)
    except RunFailed as refusal:
        if "out of turn" in str(refusal):  # what the ledger counts is not what training does
            raise Detected(str(refusal)) from refusal
        raise
    (accounted,) = certificate["events"]
    made = len(run.releases)
    expect(made == accounted["steps"] == accounted["released"], "each step is accounted for")
    released = torch.stack([flat(release) for release in run.releases]).double()
    by_image, noise = released[:, :IMAGES], released[:, IMAGES:]
    scale = accounted["noise_multiplier"] * accounted["clipping_norm"]
    spread = float(noise.square().sum()) / scale**2
    honest = 1e-5 < stats.chi2.cdf(spread, noise.numel()) < 1 - 1e-5
    expect(honest, "the noise is that of the certificate")
    included = by_image > accounted["clipping_norm"] / 2
    rate = accounted["sample_rate"]
    often = stats.binomtest(int(included.sum()), included.numel(), rate).pvalue
    expect(often > 1e-5, "the sample rate is that of the certificate")
    error = scale / math.sqrt(float(included.sum()))
    distance = abs(float(by_image[included].mean()) - accounted["clipping_norm"])
    expect(distance < 5 * error, "the clipping norm is that of the certificate")
    return run.releases
