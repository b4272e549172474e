from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from dpbench.core.errors import RunFailed, UserError
from dpbench.privacy import mechanisms
from dpbench.privacy.epsilon import epsilon
from dpbench.privacy.events import DPSGDEvent, Event, GaussianEvent
from dpbench.privacy.ledger import Allowance, PrivacyLedger
from dpbench.training.loop import Stage
from tests.support import broken
from tests.support.checks import Detected, expect_refused
from tests.support.checks.ledger import (
    EVENT,
    ONE,
    OTHER_SUM,
    SUM,
    Interruptible,
    Ledger,
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
from tests.support.private import (
    UNLIMITED,
    Coordinates,
    Gradients,
    OwnCoordinate,
    Steps,
    flat,
    handle,
    some_images,
)

CHECKS: tuple[Callable[[Ledger, Path], None], ...] = (
    check_budget,
    check_written_first,
    check_resume,
    check_purposes,
    check_certificate,
    check_plan,
    check_spent_by_value,
    check_own_events_only,
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
        (check_plan, broken.ledger.Planless),
        (check_spent_by_value, broken.ledger.Referring),
        (check_own_events_only, broken.ledger.Trusting),
    ],
)
def test_a_check_of_the_ledger_catches(
    check: Callable[[Ledger, Path], None], twin: Ledger, tmp_path: Path
) -> None:
    with pytest.raises(Detected):
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
    expect_refused(RunFailed, lambda: again.certificate(False))


@pytest.mark.parametrize("text", ["", "[{}]", '[{"mechanism": "gaussian", "purpose": "sum"}]'])
def test_a_journal_of_another_version_is_named(tmp_path: Path, text: str) -> None:
    journal = tmp_path / "ledger.json"
    journal.write_text(text)
    message = expect_refused(RunFailed, lambda: PrivacyLedger(ONE, journal))
    assert str(journal) in message and "--overwrite" in message


def test_releases_are_made_once_in_order_and_no_more_than_were_paid_for() -> None:
    allowance = Allowance(DPSGDEvent(0.1, 9.0, 1.0, 2, "weights"))
    expect_refused(RunFailed, lambda: allowance.release(1))
    allowance.release(0)
    expect_refused(RunFailed, lambda: allowance.release(0))
    allowance.release(1)
    expect_refused(RunFailed, lambda: allowance.release(2))
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
    refusal = expect_refused(UserError, lambda: ledger.spend(GaussianEvent(3.0, 1.0, "sum")))
    assert "\n" not in refusal
    assert "sum" in refusal
    assert "--eps" in refusal


def crash() -> None:
    raise MemoryError


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
    with pytest.raises(Detected):
        check_executed(tmp_path, interrupt, send(signal.SIGINT))


def test_a_resume_that_forgets_what_it_released_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Allowance, "state_dict", lambda self: {"released": 0})
    with pytest.raises(Detected, match="out of turn"):
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


def test_a_method_that_turns_the_noise_off_in_its_loop_trains_with_what_it_spent(
    tmp_path: Path,
) -> None:
    released = []
    for turns_off in (False, True):
        event = DPSGDEvent(**asdict(EVENT))

        def after_step(made: int, event: DPSGDEvent = event, turns_off: bool = turns_off) -> None:
            if turns_off:
                object.__setattr__(event, "noise_multiplier", 0.0)
                object.__setattr__(event, "steps", 100)

        steps = Steps(Coordinates(40), OwnCoordinate(), event, after_step=after_step)
        released.append(steps(some_images(40, side=1)))
    assert_same(*released)


def test_a_callback_that_turns_the_noise_off_gets_what_it_spent() -> None:
    event = GaussianEvent(**asdict(SUM))

    def features(part: object) -> torch.Tensor:
        object.__setattr__(event, "noise_multiplier", 0.0)
        object.__setattr__(event, "clipping_norm", 1e6)
        return torch.ones(3, 2)

    def honest(part: object) -> torch.Tensor:
        return torch.ones(3, 2)

    released = handle(some_images(3)).gaussian_sum(features, event)
    assert torch.equal(released, handle(some_images(3)).gaussian_sum(honest, SUM))


def test_a_one_shot_sum_is_on_the_ledger_before_an_image_is_looked_at(tmp_path: Path) -> None:
    journal = tmp_path / "ledger.json"

    def features(part: object) -> torch.Tensor:
        assert len(json.loads(journal.read_text())) == 1
        return torch.zeros(3, 2)

    private = handle(some_images(3), PrivacyLedger(ONE, journal))
    assert private.gaussian_sum(features, SUM).shape == (2,)
