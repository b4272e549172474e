"""``dpbench audit`` and the evaluator of the same name."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dpbench.core.errors import RunFailed, UserError
from dpbench.evaluators import audit as evaluator
from dpbench.evaluators.audit import EVALUATOR
from dpbench.privacy import dpsgd, mechanisms
from dpbench.privacy.audit import audit
from dpbench.privacy.audit.decide import GUESSES
from dpbench.privacy.audit.transcript import CANARIES
from tests.support import broken
from tests.support.command import TOY, Command

COMMAND = ("audit", "--method", "toy", "--dataset", "digits", "--profile", "smoke")


def test_the_command_audits_what_is_planned(dpbench: Command, toy: ModuleType) -> None:
    ended = dpbench(*COMMAND, "--eps", "5", "--json")
    assert ended.code == 0
    found = json.loads(ended.out)
    assert (found["epsilon"], found["adjacency"], found["alarms"]) == (5.0, "add_remove", [])
    assert found["sigma_low"] < 1 < found["sigma_high"]
    assert found["epsilon_lower"] <= 5
    assert (found["guesses"], found["canaries"]) == (GUESSES, CANARIES)
    assert not Path("runs").exists()


def test_the_command_says_what_it_can_show_and_what_not(dpbench: Command, toy: ModuleType) -> None:
    ended = dpbench(*COMMAND, "--eps", "50")
    assert ended.code == 0
    assert "no check refutes the claim" in ended.out
    assert re.search(r"epsilon +at least [\d.]+, of at best [45]\.\d+ in this audit", ended.out)
    assert "cannot refute epsilon = 50" in ended.out


def test_an_alarm_is_exit_code_1_and_names_the_check(
    dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dpsgd, "gaussian_noise", broken.noise.scaled_by(0.9))
    ended = dpbench(*COMMAND, "--eps", "5", "--json")
    assert ended.code == 1
    assert "sigma ratio (mean image)" in ended.err
    assert "sigma ratio (mean image)" in json.loads(ended.out)["alarms"]


def test_what_is_not_private_has_no_audit(dpbench: Command) -> None:
    ended = dpbench("audit", "--method", "real", "--dataset", "digits")
    assert ended.code == 2
    assert "no privacy claim" in ended.err


def measured(dpbench: Command, *arguments: str) -> dict[str, float | None]:
    ended = dpbench(*TOY, *arguments, "--evaluators", "audit", "--json")
    assert ended.code == 0
    return {m["metric"]: m["value"] for m in json.loads(ended.out)["measurements"]}


@pytest.mark.usefixtures("toy")
def test_a_run_records_the_audit_of_its_certificate(
    dpbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = measured(dpbench)
    assert list(values) == [metric.name for metric in EVALUATOR.metrics]
    assert (values["audit_alarms"], values["audit_epsilon_lower"]) == (0, 0)
    assert values["audit_sigma_ratio_low"] < 1 < values["audit_sigma_ratio_high"]
    assert values["audit_epsilon_ceiling"] == pytest.approx(4.6, abs=0.5)
    monkeypatch.setattr(dpsgd, "gaussian_noise", broken.noise.scaled_by(0.9))
    assert measured(dpbench, "--overwrite")["audit_alarms"] > 0


def check_independent(first: dict[str, float | None], second: dict[str, float | None]) -> None:
    """The noise over the claimed noise is of other draws."""
    for end in ("audit_sigma_ratio_low", "audit_sigma_ratio_high"):
        assert None is not first[end] != second[end]


@pytest.mark.usefixtures("toy")
def test_audits_of_runs_with_one_public_seed_share_no_noise(
    dpbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pair(*more: str) -> tuple[dict[str, float | None], dict[str, float | None]]:
        return measured(dpbench, *more), measured(dpbench, *more, "--set", "learning_rate=0.2")

    check_independent(*pair())
    # as it was before: the audit drew from what all runs of a seed have in common
    monkeypatch.setattr(evaluator, "audit_seed", lambda run_id: 0)
    with pytest.raises(AssertionError):
        check_independent(*pair("--overwrite"))


def test_the_seed_of_an_audit_follows_from_the_runs_id() -> None:
    seeds = [evaluator.audit_seed(run_id) for run_id in ("", "a", "b", "a")]
    assert len(set(seeds)) == 3 and seeds[1] == seeds[3]
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.usefixtures("toy")
def test_a_mechanism_that_makes_more_releases_than_claimed_is_an_alarm(
    dpbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dpbench(*TOY, "--evaluators", "cas").code == 0
    monkeypatch.setattr(mechanisms, "train", broken.training.makes_one_step_more)
    ended = dpbench(*TOY, "--evaluators", "audit", "--json")
    alarms, *others = json.loads(ended.out)["measurements"][-len(EVALUATOR.metrics) :]
    assert (alarms["metric"], alarms["value"]) == ("audit_alarms", 1)
    for other in others:
        assert other["reason"] == "mean image: 5 releases were made but 4 are claimed"
    assert "AUDIT ALARM: mean image: 5 releases" in ended.err


def check_other_events_are_an_alarm(dpbench: Command, toy: ModuleType) -> None:
    """A method that spends something else when it is audited than it spent in the run."""
    assert dpbench(*TOY, "--evaluators", "cas").code == 0
    honest = toy.Toy.fit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy.Toy, "fit", lambda self, *rest: honest(replace(self, steps=3), *rest))
        ended = dpbench(*TOY, "--evaluators", "audit", "--json")
    alarms, *others = json.loads(ended.out)["measurements"][-len(EVALUATOR.metrics) :]
    assert (alarms["metric"], alarms["value"]) == ("audit_alarms", 1)
    for other in others:
        assert other["value"] is None and "the claim rests on" in other["reason"]


def test_a_method_that_spends_other_events_than_claimed_is_an_alarm(
    dpbench: Command, toy: ModuleType
) -> None:
    check_other_events_are_an_alarm(dpbench, toy)


def test_an_audit_that_has_no_value_for_other_events_is_caught(
    dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it was before: the worst outcome of an audit was a missing value."""

    def lenient(*arguments: Any) -> Any:
        try:
            return audit(*arguments)
        except RunFailed as error:
            raise UserError(str(error)) from error

    monkeypatch.setattr(evaluator, "audit", lenient)
    with pytest.raises(AssertionError):
        check_other_events_are_an_alarm(dpbench, toy)


@pytest.mark.usefixtures("toy")
def test_a_run_without_a_claim_says_so(dpbench: Command) -> None:
    assert set(measured(dpbench, "--eps", "inf").values()) == {None}
