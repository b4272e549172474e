"""The budget is what was spent: counted by the harness, held against the plan, recorded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from dpbench.api.method import Plan, RunContext
from dpbench.privacy.events import DPSGDEvent
from dpbench.privacy.mechanisms import PrivateImages
from dpbench.training.evaluations import GradientEvaluations
from tests.support.command import TOY, Command

HERE = (*TOY, "--out", "here")


def record() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path("here/record.json").read_text())
    return content


@pytest.fixture
def planned(toy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Changes what the toy plans, and not what it does."""
    honest = toy.Toy.plan

    def change(edit: Callable[[Plan], Plan]) -> None:
        monkeypatch.setattr(toy.Toy, "plan", lambda *arguments: edit(honest(*arguments)))

    yield change


def evaluations(number: int) -> Callable[[Plan], Plan]:
    return lambda plan: replace(plan, stages=(replace(plan.stages[0], evaluations=number),))


def with_tenfold_noise(plan: Plan) -> Plan:
    (event,) = plan.events
    assert isinstance(event, DPSGDEvent)
    return replace(plan, events=(replace(event, noise_multiplier=10 * event.noise_multiplier),))


def with_one_event_more(plan: Plan) -> Plan:
    (event,) = plan.events
    assert isinstance(event, DPSGDEvent)
    return replace(plan, events=(event, replace(event, purpose="one more")))


def without_events(plan: Plan) -> Plan:
    return replace(plan, events=())


def refusal(dpbench: Command, toy: ModuleType, steps: int = 0) -> str:
    """The line that a run ends with after so many private steps, without a certificate."""
    ended = dpbench(*HERE)
    line = ended.err.splitlines()[-1]
    assert ended.code == 1 and line.startswith("Error: ") and "Traceback" not in ended.err
    assert toy.CALLS.get("step", 0) == steps
    assert record()["status"] == "failed" and not record()["privacy"]
    return line


def check_evaluations_are_held(
    dpbench: Command, toy: ModuleType, planned: Callable[..., None]
) -> None:
    planned(evaluations(4))
    line = refusal(dpbench, toy)
    assert "'mean image' would bring the private gradient evaluations to 64" in line
    assert "plans 4" in line


def test_more_evaluations_than_planned_are_refused_before_the_first(
    dpbench: Command, toy: ModuleType, planned: Callable[..., None]
) -> None:
    check_evaluations_are_held(dpbench, toy, planned)


def test_a_count_that_is_not_held_is_caught(
    dpbench: Command,
    toy: ModuleType,
    planned: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(GradientEvaluations, "count_private", lambda *_: None)
    with pytest.raises(AssertionError):
        check_evaluations_are_held(dpbench, toy, planned)


def test_the_record_says_what_was_counted_and_what_was_planned(
    dpbench: Command, toy: ModuleType, planned: Callable[..., None]
) -> None:
    planned(evaluations(1000))
    assert dpbench(*HERE).code == 0
    cost = record()["cost"]
    assert cost["private_evaluations"] == 64
    assert cost["planned"] == {"private_evaluations": 1000, "public_evaluations": 0}


def test_a_run_that_was_interrupted_counts_what_another_counts(
    dpbench: Command, toy: ModuleType
) -> None:
    def die(count: int) -> None:
        if count == 3:
            raise MemoryError

    toy.HOOKS["step"] = die
    assert dpbench(*HERE).code == 1
    assert dpbench(*HERE).code == 0
    assert record()["cost"]["private_evaluations"] == 64


@pytest.mark.parametrize(
    "edit, words, steps",
    [
        (with_tenfold_noise, "in its place", 0),
        (without_events, "the plan has nothing in its place", 0),
        (with_one_event_more, "fit is over without having spent", 4),
    ],
)
def test_a_fit_that_spends_other_events_than_planned_fails(
    dpbench: Command,
    toy: ModuleType,
    planned: Callable[..., None],
    edit: Callable[[Plan], Plan],
    words: str,
    steps: int,
) -> None:
    planned(edit)
    assert words in refusal(dpbench, toy, steps)


def test_an_objective_that_evaluates_more_copies_than_it_states_is_refused(
    dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss(self: Any, predict: Callable[..., Tensor], images: Tensor) -> Tensor:
        rows = images.flatten(0, 1)
        errors = [(predict(rows) - rows).square().flatten(1).mean(1) for _ in range(25)]
        return torch.stack(errors).mean(0).view(images.shape[:2]).mean(1)

    monkeypatch.setattr(toy.SquaredError, "loss", loss)
    assert "states 1 copies of each image and sends more" in refusal(dpbench, toy)


def fit_of(toy: ModuleType, monkeypatch: pytest.MonkeyPatch, what: Callable[..., Any]) -> None:
    """Has the toy do something more at the end of ``fit``, with its sampler, handle and run."""
    honest = toy.Toy.fit

    def fit(self: Any, private: PrivateImages, run: RunContext) -> Any:
        sampler = honest(self, private, run)
        return what(sampler, private, run) or sampler

    monkeypatch.setattr(toy.Toy, "fit", fit)


def test_a_public_loop_that_was_not_planned_is_refused(
    dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def more(sampler: Any, private: PrivateImages, run: RunContext) -> None:
        for _ in run.stage("more", "more training").steps(5, {}, per_step=20):
            raise AssertionError("a step was made")

    fit_of(toy, monkeypatch, more)
    assert "'more training' would bring the public" in refusal(dpbench, toy, 4)


class Stop(BaseException):
    """No ``except Exception`` catches it."""


@pytest.mark.parametrize(
    "command, part, end",
    [
        ("run", "plan", SystemExit(0)),
        ("run", "fit", SystemExit(0)),
        ("run", "fit", Stop()),
        ("check", "plan", SystemExit(0)),
        ("check", "fit", SystemExit(0)),
        ("audit", "fit", SystemExit(0)),
    ],
)
def test_a_method_that_ends_the_interpreter_fails_in_a_line(
    dpbench: Command,
    toy: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    part: str,
    end: BaseException,
) -> None:
    def ends(*_: Any) -> None:
        raise end

    monkeypatch.setattr(toy.Toy, part, ends)
    budget = () if command == "check" else ("--method", "toy", "--eps", "0.001")
    method = ("toy",) if command == "check" else ()
    profile = () if command == "check" else ("--profile", "smoke")
    ended = dpbench(command, *method, *budget, *profile, "--dataset", "digits")
    assert ended.code == 1 and "Traceback" not in ended.err
    assert f"ends the interpreter ({type(end).__name__}:" in ended.err.splitlines()[-1]


@pytest.mark.parametrize("part", ["sample", "evaluate"])
def test_what_ends_the_interpreter_later_loses_nothing(
    dpbench: Command, toy: ModuleType, part: str
) -> None:
    def ends(count: int) -> None:
        raise SystemExit(0)

    toy.HOOKS[part] = ends
    ended = dpbench(*HERE)
    assert ended.code == 1 and "ends the interpreter" in ended.err
    toy.HOOKS.clear()
    assert dpbench(*HERE).code == 0
    assert record()["status"] == "complete"
    assert record()["measurements"][0]["value"] is not None


def test_a_handle_is_of_no_use_when_fit_is_over(
    dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[PrivateImages] = []
    fit_of(toy, monkeypatch, lambda sampler, private, run: kept.append(private))

    def look(count: int) -> None:
        kept[0].gaussian_sum(lambda part: part.pixels.flatten(1).float(), None)  # type: ignore[arg-type]

    toy.HOOKS["sample"] = look
    ended = dpbench(*HERE)
    assert ended.code == 1
    assert "private images cannot be used when fit is over" in ended.err.splitlines()[-1]
    assert kept[0]._PrivateImages__images is None  # type: ignore[attr-defined]
