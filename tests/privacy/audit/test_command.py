"""``dpbench audit`` and the evaluator of the same name."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from dpbench.evaluators.audit import EVALUATOR
from dpbench.privacy import dpsgd
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
    monkeypatch.setattr(dpsgd, "gaussian_noise", broken.noise.scaled_by(0.9))
    assert measured(dpbench, "--overwrite")["audit_alarms"] > 0


@pytest.mark.usefixtures("toy")
def test_a_run_without_a_claim_says_so(dpbench: Command) -> None:
    assert set(measured(dpbench, "--eps", "inf").values()) == {None}
