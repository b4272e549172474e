from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats

from dpbench.core.errors import RunFailed, UserError
from dpbench.core.streams import Streams
from dpbench.privacy import mechanisms
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.epsilon import epsilon
from dpbench.privacy.events import DPSGDEvent, Event, GaussianEvent, event_from_json
from dpbench.privacy.ledger import Allowance, PrivacyLedger
from dpbench.training.loop import Stage
from tests.support import broken
from tests.support.private import (
    KEY,
    UNLIMITED,
    Coordinates,
    Gradients,
    OwnCoordinate,
    Steps,
    assert_refused,
    flat,
    handle,
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
    assert_refused(UserError, lambda: ledger.spend(GaussianEvent(3.0, 1.0, "too much")))
    assert not journal.exists()
    ledger.spend(SUM)
    before = journal.read_text()
    assert_refused(UserError, lambda: ledger.spend(GaussianEvent(4.5, 1.0, "too much together")))
    assert journal.read_text() == before
    assert ledger.events == (SUM,)
    assert ledger.spent() == epsilon([SUM], ONE.delta) <= 1


def check_written_first(kind: Ledger, folder: Path) -> None:
    """The journal holds an event before the right to release it is given."""
    journal = folder / "first.json"
    ledger = kind(ONE, journal)
    for count, event in enumerate((SUM, OTHER_SUM), start=1):
        ledger.spend(event)
        assert journal.exists()
        written = [event_from_json(each) for each in json.loads(journal.read_text())]
        assert len(written) == count
        assert written[-1] == event


def check_resume(kind: Ledger, folder: Path) -> None:
    """An interrupted run may only spend again what it spent, in the same order."""
    journal = folder / "resume.json"
    first = kind(ONE, journal)
    first.spend(SUM)
    first.spend(OTHER_SUM)
    again = kind(ONE, journal)
    assert_refused(RunFailed, lambda: again.spend(GaussianEvent(60.0, 1.0, "sum")))
    assert_refused(RunFailed, lambda: again.spend(OTHER_SUM))
    again.spend(SUM)
    again.spend(OTHER_SUM)
    assert again.events == first.events
    assert len(json.loads(journal.read_text())) == 2


def check_purposes(kind: Ledger, folder: Path) -> None:
    """Noise is keyed by purpose, so no purpose is spent twice."""
    ledger = kind(PrivacyBudget(10.0))
    ledger.spend(SUM)
    assert_refused(RunFailed, lambda: ledger.spend(SUM))
    assert_refused(RunFailed, lambda: ledger.spend(DPSGDEvent(0.1, 9.0, 1.0, 2, "sum")))


def check_certificate(kind: Ledger, folder: Path) -> None:
    """Only a run whose every accounted release was made is certified, for all that it spent."""
    journal = folder / "certificate.json"
    ledger = kind(ONE, journal)
    training = ledger.spend(DPSGDEvent(0.1, 9.0, 1.0, 3, "weights"))
    for step in range(3):
        assert_refused(RunFailed, lambda: ledger.certificate(False))
        training.release(step)
    ledger.spend(SUM).release(0)
    certificate = ledger.certificate(False)
    assert certificate["epsilon"] == epsilon(ledger.events, ONE.delta)
    assert (certificate["delta"], certificate["adjacency"]) == (1e-5, "add_remove")
    assert [event["released"] for event in certificate["events"]] == [3, 1]
    for shown, event in zip(certificate["events"], ledger.events, strict=True):
        parameters = {name: value for name, value in shown.items() if name != "released"}
        assert event_from_json(parameters) == event


CHECKS: tuple[Callable[[Ledger, Path], None], ...] = (
    check_budget,
    check_written_first,
    check_resume,
    check_purposes,
    check_certificate,
)


@pytest.mark.parametrize("check", CHECKS)
def test_the_ledger_holds(check: Callable[[Ledger, Path], None], tmp_path: Path) -> None:
    check(PrivacyLedger, tmp_path)


@pytest.mark.parametrize(
    "check, twin",
    [
        (check_budget, broken.ledger.Lenient),
        (check_written_first, broken.ledger.Unwritten),
        (check_resume, broken.ledger.Forgetful),
        (check_purposes, broken.ledger.Permissive),
        (check_certificate, broken.ledger.Hasty),
        (check_certificate, broken.ledger.LastOnly),
    ],
)
def test_a_check_of_the_ledger_catches(
    check: Callable[[Ledger, Path], None], twin: Ledger, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError):
        check(twin, tmp_path)


def test_a_resumed_run_that_does_not_spend_all_it_spent_before_is_not_certified(
    tmp_path: Path,
) -> None:
    journal = tmp_path / "ledger.json"
    first = PrivacyLedger(ONE, journal)
    first.spend(SUM).release(0)
    first.spend(OTHER_SUM).release(0)
    again = PrivacyLedger(ONE, journal)
    again.spend(SUM).release(0)
    assert_refused(RunFailed, lambda: again.certificate(False))


@pytest.mark.parametrize("text", ["", "[{}]", '[{"mechanism": "gaussian", "purpose": "sum"}]'])
def test_a_journal_of_another_version_is_named(tmp_path: Path, text: str) -> None:
    journal = tmp_path / "ledger.json"
    journal.write_text(text)
    message = assert_refused(RunFailed, lambda: PrivacyLedger(ONE, journal))
    assert str(journal) in message and "--overwrite" in message


def test_releases_are_made_once_in_order_and_no_more_than_were_paid_for() -> None:
    allowance = Allowance(DPSGDEvent(0.1, 9.0, 1.0, 2, "weights"))
    assert_refused(RunFailed, lambda: allowance.release(1))
    allowance.release(0)
    assert_refused(RunFailed, lambda: allowance.release(0))
    allowance.release(1)
    assert_refused(RunFailed, lambda: allowance.release(2))
    assert allowance.released == 2


def test_what_was_spent_so_far_is_shown_without_the_steps_still_to_come() -> None:
    ledger = PrivacyLedger(ONE)
    ledger.spend(SUM)
    training = ledger.spend(DPSGDEvent(0.1, 9.0, 1.0, 100, "weights"))
    shown = [ledger.spent_after(training, steps) for steps in (1, 50, 100)]
    assert shown == sorted(shown)
    assert shown[-1] == ledger.spent()
    half: list[Event] = [SUM, DPSGDEvent(0.1, 9.0, 1.0, 50, "weights")]
    assert shown[1] == epsilon(half, ONE.delta)


def test_the_certificate_says_when_there_is_nothing_to_certify() -> None:
    ledger = PrivacyLedger(ONE)
    ledger.spend(SUM).release(0)
    assert ledger.certificate(reproducible=False)["release"] == "valid"
    assert ledger.certificate(reproducible=True)["release"].startswith("void")
    unlimited = PrivacyLedger(UNLIMITED)
    unlimited.spend(GaussianEvent(0.0, 1.0, "sum")).release(0)
    for reproducible in (False, True):
        certificate = unlimited.certificate(reproducible)
        assert certificate["release"] == "not private"
        assert certificate["epsilon"] == math.inf


def test_what_is_not_the_users_mistake_is_not_called_one(tmp_path: Path) -> None:
    ledger = PrivacyLedger(ONE)
    refusal = assert_refused(UserError, lambda: ledger.spend(GaussianEvent(3.0, 1.0, "sum")))
    assert "\n" not in refusal
    assert "sum" in refusal
    assert "--eps" in refusal


# What is executed is what was accounted for.

IMAGES, SPARE = 400, 400
CLIPPING_NORM = 0.7
EVENT = DPSGDEvent(0.3, 0.15, CLIPPING_NORM, 6, "weights")


class Interruptible:
    """A run of training in a folder, which can be interrupted and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.releases: list[Gradients] = []

    def start(self, interrupt: int = 0, how: Callable[[], None] = lambda: None) -> PrivacyLedger:
        """Fresh objects, as in a new process; ``how`` is called within step ``interrupt``."""

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
    return lambda: os.kill(os.getpid(), number)


def crash() -> None:
    raise MemoryError


def check_executed(
    folder: Path, interrupt: int = 0, how: Callable[[], None] = lambda: None
) -> list[Gradients]:
    """Steps, sampling rate, noise and clipping norm as measured are those in the certificate."""
    run = Interruptible(folder)
    if interrupt:
        with pytest.raises(KeyboardInterrupt):
            run.start(interrupt, how)
        assert len(run.releases) == interrupt
    certificate = run.start().certificate(False)
    (accounted,) = certificate["events"]
    assert len(run.releases) == accounted["steps"] == accounted["released"]
    released = torch.stack([flat(release) for release in run.releases]).double()
    by_image, noise = released[:, :IMAGES], released[:, IMAGES:]
    scale = accounted["noise_multiplier"] * accounted["clipping_norm"]
    spread = float(noise.square().sum()) / scale**2
    assert 1e-5 < stats.chi2.cdf(spread, noise.numel()) < 1 - 1e-5
    included = by_image > accounted["clipping_norm"] / 2
    rate = accounted["sample_rate"]
    assert stats.binomtest(int(included.sum()), included.numel(), rate).pvalue > 1e-5
    error = scale / math.sqrt(float(included.sum()))
    assert abs(float(by_image[included].mean()) - accounted["clipping_norm"]) < 5 * error
    return run.releases


def assert_same(first: list[Gradients], second: list[Gradients]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(flat(one), flat(other))


def test_what_is_executed_is_what_is_accounted_for(tmp_path: Path) -> None:
    check_executed(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_in_the_middle_of_a_step_changes_no_release(
    number: int, tmp_path: Path
) -> None:
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    whole.mkdir()
    torn.mkdir()
    assert_same(check_executed(whole), check_executed(torn, interrupt=3, how=send(number)))
    assert handlers == [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]


def test_a_crash_repeats_the_releases_that_were_made_and_makes_no_others(tmp_path: Path) -> None:
    run = Interruptible(tmp_path)
    with pytest.raises(MemoryError):
        run.start(interrupt=4, how=crash)
    lost = run.releases
    assert len(lost) == 4
    run.releases = []
    certificate = run.start().certificate(False)
    assert certificate["events"][0]["released"] == len(run.releases) == EVENT.steps
    assert_same(run.releases[:4], lost)


@pytest.mark.parametrize(
    "owner, name, twin, interrupt",
    [
        (mechanisms, "train", broken.training.makes_one_step_more, 0),
        (mechanisms, "train", broken.training.samples_at_twice_the_rate, 0),
        (mechanisms, "train", broken.training.adds_a_tenth_less_noise, 0),
        (mechanisms, "train", broken.training.clips_at_twice_the_norm, 0),
        (Stage, "_load", broken.training.starts_over, 3),
    ],
    ids=["a step more", "twice the rate", "less noise", "twice the norm", "starting over"],
)
def test_measuring_what_is_executed_catches(
    owner: Any,
    name: str,
    twin: object,
    interrupt: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(owner, name, twin)
    with pytest.raises(AssertionError):
        check_executed(tmp_path, interrupt, send(signal.SIGINT))


def test_a_resume_that_forgets_what_it_released_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Allowance, "state_dict", lambda self: {"released": 0})
    with pytest.raises(RunFailed):
        check_executed(tmp_path, 3, send(signal.SIGINT))


def test_training_that_is_over_is_not_repeated(tmp_path: Path) -> None:
    run = Interruptible(tmp_path)
    run.start()
    run.releases = []
    certificate = run.start().certificate(False)
    assert run.releases == []
    assert certificate["events"][0]["released"] == EVENT.steps


def test_an_interruption_in_the_last_step_is_not_lost(tmp_path: Path) -> None:
    run = Interruptible(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run.start(interrupt=EVENT.steps, how=send(signal.SIGINT))
    assert len(run.releases) == EVENT.steps


def test_training_over_budget_makes_no_step(tmp_path: Path) -> None:
    event = DPSGDEvent(0.5, 1.0, 1.0, 50, "weights")
    released: list[Gradients] = []
    steps = Steps(Coordinates(10), OwnCoordinate(), event)
    ledger = PrivacyLedger(ONE)
    with pytest.raises(UserError):
        steps.run(some_images(10), released, ledger, folder=tmp_path)
    assert released == []
    assert ledger.events == ()
    assert list(tmp_path.iterdir()) == []


def test_training_state_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    Interruptible(tmp_path).start()
    assert (tmp_path / "private.stage").stat().st_mode & 0o077 == 0


def test_a_one_shot_sum_is_on_the_ledger_before_an_image_is_looked_at(tmp_path: Path) -> None:
    journal = tmp_path / "ledger.json"

    def features(part: object) -> torch.Tensor:
        assert len(json.loads(journal.read_text())) == 1
        return torch.zeros(3, 2)

    private = handle(some_images(3), PrivacyLedger(ONE, journal))
    assert private.gaussian_sum(features, SUM).shape == (2,)
