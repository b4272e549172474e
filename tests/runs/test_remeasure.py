"""Evaluators that measure again, without training or a second release."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dpbench.api.evaluator import EvaluationContext
from dpbench.core.errors import UserError
from dpbench.core.metrics import Measurement
from tests.support.command import TOY, Command

HERE = (*TOY, "--out", "here")
AGAIN = (*HERE, "--remeasure", "toy")


def record() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path("here/record.json").read_text())
    return content


def values() -> dict[str, float | None]:
    return {row["metric"]: row["value"] for row in record()["measurements"]}


def test_rows_are_replaced_and_nothing_else_is_made_again(
    dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dpbench(*HERE).code == 0
    before, calls = record(), dict(toy.CALLS)
    files = {
        name: Path("here", name).read_bytes()
        for name in ("checkpoint.pt", "samples.npz", "releases.json")
    }

    def evaluate(self: object, case: EvaluationContext) -> list[Measurement]:
        toy.reach("evaluate")
        return [
            Measurement("toy_mean", None, "", False, 1, reason="it was wrong"),
            Measurement("toy_missing", 7.0, "%", True, 1),
        ]

    monkeypatch.setattr(toy.ToyEvaluator, "evaluate", evaluate)
    assert dpbench(*AGAIN).code == 0
    assert values() == {"toy_mean": None, "toy_missing": 7.0}
    assert toy.CALLS == {**calls, "evaluate": 2}
    after = record()
    assert (after["spec"], after["privacy"]) == (before["spec"], before["privacy"])
    spent = "private_evaluations"
    assert after["cost"][spent] == before["cost"][spent]
    assert after["status"] == "complete" and after["done"] == ["fit", "sample", "toy"]
    assert after["digest"] != before["digest"]
    assert {name: Path("here", name).read_bytes() for name in files} == files
    assert dpbench("verify", "here").code == 0
    assert "complete already" in dpbench(*HERE).err


def test_values_stay_until_there_are_others(dpbench: Command, toy: ModuleType) -> None:
    assert dpbench(*HERE).code == 0
    before = values()

    def fail(count: int) -> None:
        if count == 2:
            raise MemoryError

    toy.HOOKS["evaluate"] = fail
    ended = dpbench(*AGAIN)
    assert ended.code == 1 and "out of memory" in ended.err
    assert values() == before
    assert record()["evaluators"]["toy"]["outcome"] == "failed"
    assert dpbench(*HERE).code == 0
    assert (values(), toy.CALLS["evaluate"]) == (before, 3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--remeasure", "toys"), "Did you mean 'toy'"),
        (("--remeasure", ""), "--remeasure is empty"),
        (("--remeasure", "toy", "--overwrite"), "leave --remeasure out"),
        (("--remeasure", "toy", "--evaluators", "cas"), "--evaluators leaves it out"),
    ],
)
def test_what_cannot_be_measured_again_is_refused(
    options: tuple[str, ...], says: str, dpbench: Command, toy: ModuleType
) -> None:
    assert dpbench(*HERE).code == 0
    before = Path("here/record.json").read_bytes()
    ended = dpbench(*HERE, *options)
    assert ended.code == 2 and says in ended.err, ended.err
    assert Path("here/record.json").read_bytes() == before


def test_a_run_that_was_never_made_is_not_made_for_it(dpbench: Command, toy: ModuleType) -> None:
    """As after a typing error in an option, which would train another run."""
    for place in (("--out", "here"), ()):
        ended = dpbench(*TOY, *place, "--remeasure", "toy")
        assert ended.code == 2 and "no samples to measure again" in ended.err
    assert list(Path().iterdir()) == []
    assert toy.CALLS == {}


def test_what_a_user_names_and_is_not_there_ends_the_run_before_it_begins(
    dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(images: object) -> str:
        raise UserError("WEIGHTS names here.pt, which is not a file")

    monkeypatch.setattr(toy.ToyEvaluator, "missing", staticmethod(missing), raising=False)
    for command in (HERE, ("sweep", "--methods", "toy", "--datasets", "digits")):
        ended = dpbench(*command)
        assert (ended.code, toy.CALLS) == (2, {})
        assert ended.err.splitlines()[-1].startswith("Error: WEIGHTS names here.pt")
    assert list(Path().iterdir()) == []
