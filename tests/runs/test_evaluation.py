"""How evaluators end, and which are tried again."""

from __future__ import annotations

import errno
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dpbench.api.evaluator import EvaluationContext
from dpbench.core import registry
from dpbench.core.errors import Unavailable
from dpbench.core.metrics import Measurement
from dpbench.runs import evaluation
from tests.support.command import PLUGINS, TOY, Command, Ended

HERE = (*TOY, "--out", "here")


def record() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path("here/record.json").read_text())
    return content


def status(name: str = "toy") -> dict[str, str]:
    found: dict[str, str] = record()["evaluators"][name]
    return found


def values() -> list[tuple[str, bool]]:
    return [(row["metric"], row["value"] is not None) for row in record()["measurements"]]


def last_line(ended: Ended) -> str:
    return ended.err.splitlines()[-1]


BOTH = [("toy_mean", True), ("toy_missing", False)]


# --- failed


def check_a_failure_is_tried_again(dpbench: Command, toy: ModuleType) -> None:
    """An evaluator fails once: the same command has it measure, and makes nothing else again."""

    def fail(count: int) -> None:
        if count == 1:
            raise ValueError("out of\nmemory")

    toy.HOOKS["evaluate"] = fail
    ended = dpbench(*HERE)
    assert ended.code == 1
    assert last_line(ended) == (
        "Error: not all was measured (toy: ValueError: out of memory): the same command tries again"
    )
    assert record()["status"] == "complete"
    assert (status()["outcome"], status()["reason"]) == ("failed", "ValueError: out of memory")
    assert {row["reason"] for row in record()["measurements"]} == {"ValueError: out of memory"}
    assert record()["done"] == ["fit", "sample"]
    calls = dict(toy.CALLS)
    assert dpbench(*HERE).code == 0
    assert (status()["outcome"], status()["reason"]) == ("measured", "")
    assert values() == BOTH, "the old rows are there still, or the new ones are not"
    assert toy.CALLS == {**calls, "evaluate": 2}, "more than the evaluator was called again"
    assert record()["done"] == ["fit", "sample", "toy"]
    assert "complete already" in dpbench(*HERE).err


def test_an_evaluator_that_fails_once_measures_the_next_time(
    dpbench: Command, toy: ModuleType
) -> None:
    check_a_failure_is_tried_again(dpbench, toy)


PASSING = {
    OSError(errno.ENOSPC, "No space left on device"): "no space left on device: make room",
    OSError(errno.EIO, "Input/output error"): "OSError: [Errno 5] Input/output error",
    MemoryError(): "out of memory (MemoryError): free some, or allow more",
    RuntimeError("could not create a primitive"): (
        "out of memory (could not create a primitive): free some, or allow more"
    ),
}


def test_no_passing_trouble_is_final(dpbench: Command, toy: ModuleType) -> None:
    errors = list(PASSING)

    def fail(count: int) -> None:
        if count <= len(errors):
            raise errors[count - 1]

    toy.HOOKS["evaluate"] = fail
    for says in PASSING.values():
        ended = dpbench(*HERE)
        assert (ended.code, status()["outcome"], status()["reason"]) == (1, "failed", says)
        assert f"({says})".replace("(", "(toy: ", 1) in last_line(ended)
        assert "toy" not in record()["done"]
    assert dpbench(*HERE).code == 0
    assert values() == BOTH


def test_a_harness_to_which_failures_are_final_is_noticed(
    dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        evaluation, "_waits", lambda name, _, record, images: name not in record.evaluators
    )
    with pytest.raises(AssertionError):
        check_a_failure_is_tried_again(dpbench, toy)


def test_samples_made_elsewhere_are_tried_again_too(dpbench: Command, toy: ModuleType) -> None:
    assert dpbench(*HERE).code == 0

    def fail(count: int) -> None:
        if count == 2:
            raise ValueError("tired")

    toy.HOOKS["evaluate"] = fail
    command = ("evaluate", "here", "--out", "scores.json")
    ended = dpbench(*command)
    assert ended.code == 1 and "(toy: ValueError: tired)" in last_line(ended)
    assert dpbench(*command).code == 0
    scores = json.loads(Path("scores.json").read_text())
    assert scores["evaluators"]["toy"]["outcome"] == "measured"
    assert scores["measurements"] == record()["measurements"]
    assert "measured already" in dpbench(*command).err


def test_a_metric_that_is_not_declared_is_a_failure(
    dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Measurement("surprise", 1.0, "", True, 1)]
    monkeypatch.setattr(toy.ToyEvaluator, "evaluate", lambda self, case: found)
    assert dpbench(*HERE).code == 1
    assert "returned surprise, which is not among its metrics" in status()["reason"]
    assert values() == [("toy_mean", False), ("toy_missing", False)]


# --- unavailable


@pytest.fixture
def waits_for_a_file(toy: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The toy evaluator measures without a file, and more with it."""
    file, honest = tmp_path / "weights", toy.ToyEvaluator.evaluate

    def missing(images: object) -> str:
        return "" if file.exists() else "no weights"

    def evaluate(self: object, case: EvaluationContext) -> list[Measurement]:
        mean, _ = honest(self, case)
        if not file.exists():
            case.unavailable("no weights")
            case.unavailable("no weights")
            return [mean, Measurement("toy_missing", None, "%", True, 1, reason="no weights")]
        return [mean, Measurement("toy_missing", 7.0, "%", True, 1)]

    monkeypatch.setattr(toy.ToyEvaluator, "missing", staticmethod(missing), raising=False)
    monkeypatch.setattr(toy.ToyEvaluator, "evaluate", evaluate)
    return file


def test_a_file_that_appears_is_used_by_the_same_command(
    dpbench: Command, toy: ModuleType, waits_for_a_file: Path
) -> None:
    assert dpbench(*HERE).code == 0, "what a user has not installed is no failure"
    assert (status()["outcome"], status()["reason"]) == ("unavailable", "no weights")
    assert values() == BOTH
    assert "complete already" in dpbench(*HERE).err, "it was tried again in vain"
    waits_for_a_file.touch()
    calls = dict(toy.CALLS)
    assert dpbench(*HERE).code == 0
    assert status()["outcome"] == "measured"
    assert values() == [("toy_mean", True), ("toy_missing", True)]
    assert toy.CALLS == {**calls, "evaluate": 2}


def test_a_value_stays_when_the_next_call_has_none(
    dpbench: Command, toy: ModuleType, waits_for_a_file: Path
) -> None:
    def fail(count: int) -> None:
        raise ValueError("out of memory")

    assert dpbench(*HERE).code == 0
    waits_for_a_file.touch()
    toy.HOOKS["evaluate"] = fail
    assert dpbench(*HERE).code == 1
    assert status()["outcome"] == "failed"
    assert values() == BOTH


def test_an_evaluator_may_raise_what_it_lacks(
    dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lack(count: int) -> None:
        if count == 1:
            raise Unavailable("pip install\nthat")

    toy.HOOKS["evaluate"] = lack
    assert dpbench(*HERE).code == 0
    assert (status()["outcome"], status()["reason"]) == ("unavailable", "pip install that")
    assert values() == [("toy_mean", False), ("toy_missing", False)]
    assert dpbench(*HERE).code == 0, "without `missing` it is tried each time"
    assert (status()["outcome"], values()) == ("measured", BOTH)


def test_what_cannot_change_is_over(dpbench: Command, toy: ModuleType) -> None:
    """Samples have no mechanism, whatever is installed later, so that the audit is not waiting."""
    assert dpbench(*HERE).code == 0
    command = ("evaluate", "here", "--evaluators", "audit", "--out", "scores.json")
    assert dpbench(*command).code == 0
    scores = json.loads(Path("scores.json").read_text())
    assert scores["evaluators"]["audit"]["outcome"] == "measured"
    assert all("only samples are evaluated" in row["reason"] for row in scores["measurements"])
    assert "measured already" in dpbench(*command).err


# --- broken


@pytest.fixture
def plugin(
    toy: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[str], None]:
    """Install an evaluator from source text beside the toy, and again from other text."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    entry = registry.Entry("extra", "evaluators", "extra_of_tests", "Extra", "extra-dist", "1.0")
    known = registry.entries

    def entries(kind: registry.Kind) -> dict[str, registry.Entry]:
        return {**known(kind), "extra": entry} if kind == "evaluator" else known(kind)

    monkeypatch.setattr(registry, "entries", entries)
    monkeypatch.setattr(
        evaluation, "entries", lambda kind: {each: entries(kind)[each] for each in ("extra", "toy")}
    )

    def install(source: str) -> None:
        sys.modules.pop("extra_of_tests", None)
        (folder / "extra_of_tests.py").write_text(source)
        importlib.invalidate_caches()

    return install


def test_an_evaluator_that_cannot_be_imported_leaves_no_run_incomplete(
    dpbench: Command, toy: ModuleType, plugin: Callable[[str], None]
) -> None:
    plugin("import a_library_that_is_nowhere")
    ended = dpbench(*HERE)
    assert ended.code == 0
    assert "skipped: evaluator 'extra' of extra-dist 1.0 is broken" in ended.err
    assert status("extra")["outcome"] == "failed"
    assert "a_library_that_is_nowhere" in status("extra")["reason"]
    assert (status()["outcome"], values()) == ("measured", BOTH)
    assert "complete already" in dpbench(*HERE).err, "a sweep would resume it for ever"

    source = (PLUGINS / "toy.py").read_text().replace("toy_", "extra_")
    plugin(f"{source}\nExtra = ToyEvaluator\n")
    calls = dict(toy.CALLS)
    assert dpbench(*HERE).code == 0
    assert status("extra")["outcome"] == "measured"
    assert toy.CALLS == calls
    assert [metric for metric, _ in values()] == [
        *("toy_mean", "toy_missing"),
        *("extra_mean", "extra_missing"),
    ]
    assert "complete already" in dpbench(*HERE).err


# --- what rows say


def test_rows_have_the_version_of_their_evaluator_and_the_kind_of_their_metric(
    dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    family = replace(toy.ToyEvaluator.metrics[0], name="toy_m*", kind="diagnostic")
    longer = replace(family, name="toy_missing*", kind="reference")
    own = replace(family, name="toy_mean", kind="bound")
    monkeypatch.setattr(toy.ToyEvaluator, "metrics", (family, longer, own))
    assert dpbench(*HERE).code == 0
    rows = record()["measurements"]
    assert [(row["metric"], row["kind"]) for row in rows] == [
        ("toy_mean", "bound"),
        ("toy_missing", "reference"),
    ]
    assert {row["version"] for row in rows} == {status()["version"]} and status()["version"]


def test_a_name_that_is_repeated_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up = []
    monkeypatch.setattr(evaluation, "load_entry", lambda kind, name: looked_up.append(name))
    assert evaluation.named(("cas", "audit", "cas") * 1000) == ["cas", "audit"]
    assert looked_up == ["cas", "audit"]
