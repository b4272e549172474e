from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dpbench.core.canonical import to_json
from dpbench.core.errors import UserError
from dpbench.core.metrics import Measurement
from dpbench.records.run_record import (
    SCHEMA_VERSION,
    RunRecord,
    RunSpec,
    find_records,
    parse_record,
    read_record,
)
from tests.support.command import TOY, Command

ROOT = Path(__file__).parent.parent.parent
SPEC = RunSpec(
    method="toy",
    method_version="toy 1.0",
    method_args={"steps": 3, "widths": (1, 2), "above": -math.inf},
    dataset="digits",
    dataset_hash="00ff",
    epsilon=math.inf,
    delta=1e-5,
    adjacency="add_remove",
    seed=0,
    profile="smoke",
    compute={"private_evaluations": 10, "train_seconds": math.inf},
    samples=10,
)
OTHER: dict[str, Any] = {
    "method": "other",
    "method_version": "toy 1.1",
    "method_args": {**SPEC.method_args, "steps": 4},
    "dataset": "mnist",
    "dataset_hash": "11ff",
    "epsilon": 1.0,
    "delta": 1e-6,
    "adjacency": "replace_one",
    "seed": 1,
    "profile": "laptop",
    "compute": {**SPEC.compute, "private_evaluations": 11},
    "samples": 11,
    "public": "imagenet",
    "precision": "bfloat16",
    "reproducible": True,
    "schema_version": 1,
}


def no_such_constant(name: str) -> None:
    pytest.fail(f"{name} is no JSON")


@pytest.fixture
def finished(dpbench: Command, toy: ModuleType, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    assert dpbench(*TOY, "--set", "steps=3", "--out", "here").code == 0
    text = (tmp_path / "here" / "record.json").read_text()
    return tmp_path / "here", json.loads(text, parse_constant=no_such_constant)


def test_a_record_has_the_promised_fields(finished: tuple[Path, dict[str, Any]]) -> None:
    _, record = finished
    assert record["schema_version"] == 2
    assert len(record["id"]) == 64
    assert record["status"] == "complete" and record["error"] is None
    for name in (
        *("method", "method_args", "dataset", "epsilon", "delta"),
        *("adjacency", "seed", "profile", "public"),
    ):
        assert name in record["spec"]
    assert record["spec"]["method_args"] == {"steps": 3, "batch_size": 16, "learning_rate": 0.1}
    assert record["resolved"]["by_hand"] == ["steps"]
    privacy = record["privacy"]
    assert 0 < privacy["epsilon"] <= 0.001
    assert privacy["delta"] == 1e-5 and privacy["adjacency"] == "add_remove"
    assert "dp-accounting" in privacy["accountant"]
    (event,) = privacy["events"]
    assert event["steps"] == event["released"] == 3
    assert event["clipping_norm"] == 1.0
    assert [check["epsilon"] > 0 for check in privacy["cross_checks"]] == [True, True]
    assert privacy["code"]["package"].startswith("dpbench-images ")
    assert privacy["code"]["git_revision"] == record["environment"]["git_revision"]
    assert set(record["timings"]) == {"fit", "sample", "toy"}
    assert record["cost"]["private_evaluations"] == 48
    assert record["cost"]["stages"] == {"training": 48}
    assert record["cost"]["peak_memory_mb"] > 0
    for name in ("python", "torch", "dp-accounting", "git_revision"):
        assert name in record["environment"]


def test_a_measurement_has_a_value_or_a_reason(finished: tuple[Path, dict[str, Any]]) -> None:
    _, record = finished
    promised = {"metric", "value", "unit", "higher_is_better", "n", "split", "extractor", "reason"}
    assert all(promised <= row.keys() for row in record["measurements"])
    there, missing = record["measurements"]
    assert there["value"] > 0 and there["reason"] == ""
    assert missing["value"] is None and missing["reason"] == "it is [missing]"


def test_the_hash_of_every_file_is_that_of_the_file(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    folder, record = finished
    files = {file.name for file in folder.iterdir()} - {"record.json"}
    assert record["artifacts"].keys() == files
    for name, digest in record["artifacts"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_what_an_evaluator_keeps_is_an_artifact_under_its_name(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    folder, record = finished
    assert "evaluation-toy.npz" in record["artifacts"]
    with np.load(folder / "evaluation-toy.npz") as kept:
        assert {name: len(kept[name]) for name in kept} == {"test_labels": 360}


def test_a_non_private_run_says_inf_and_not_private(dpbench: Command, toy: ModuleType) -> None:
    ended = dpbench(*TOY, "--eps", "inf", "--json")
    record = json.loads(ended.out, parse_constant=no_such_constant)
    assert record["spec"]["epsilon"] == record["privacy"]["epsilon"] == "inf"
    assert record["privacy"]["release"] == "not private"


def test_the_id_is_the_same_wherever_a_run_happens(dpbench: Command, toy: ModuleType) -> None:
    def run_id(*options: object) -> str:
        ended = dpbench(*TOY, "--json", *options)
        assert ended.code == 0
        return str(json.loads(ended.out)["id"])

    first = run_id("--runs-dir", "a")
    elsewhere = ("--runs-dir", "b", "--device", "cpu", "--data-root", "nowhere")
    assert run_id(*elsewhere) == first
    assert run_id("--out", "c", "--set", "steps=4") == first, "the default, by hand"
    for difference in (("--seed", 1), ("--eps", 0.002), ("--set", "steps=5"), ("--reproducible",)):
        assert run_id(*difference) != first


def test_the_id_depends_on_all_of_the_spec() -> None:
    assert OTHER.keys() == {field.name for field in fields(RunSpec)}, "a new field is untested"
    ids = {replace(SPEC, **{name: value}).id for name, value in OTHER.items()}
    assert len(ids | {SPEC.id}) == len(OTHER) + 1


def test_the_folder_tells_budgets_seeds_and_arguments_apart() -> None:
    folders = {replace(SPEC, **{name: value}).folder for name, value in OTHER.items()}
    assert len(folders | {SPEC.folder}) == len(OTHER) + 1
    assert SPEC.folder == Path("digits/toy") / f"epsinf-seed0-{SPEC.id[:8]}"


def test_a_record_survives_being_written_and_read(tmp_path: Path) -> None:
    record = RunRecord(SPEC, status="complete", done=["fit"], timings={"fit": 0.1})
    record.measurements = [Measurement("fid", 0.1 + 0.2, "", False, 10)]
    (tmp_path / "record.json").write_text(record.dumps())
    again = read_record(tmp_path / "record.json")
    assert again.dumps() == record.dumps()
    assert again.spec.id == SPEC.id
    assert again.spec.epsilon == math.inf
    assert again.measurements == record.measurements


@pytest.mark.parametrize("name", ["seed", "epsilon", "dataset_hash", "method_args"])
def test_an_edited_spec_is_refused(tmp_path: Path, name: str) -> None:
    content = json.loads(RunRecord(SPEC).dumps())
    content["spec"][name] = to_json(OTHER[name])
    file = tmp_path / "record.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="was edited"):
        read_record(file)


def test_any_edited_part_is_refused(tmp_path: Path) -> None:
    record = RunRecord(SPEC, status="complete", cost={"peak_memory_mb": 1.0})
    record.measurements = [Measurement("fid", 1.0, "", False, 10)]
    file = tmp_path / "record.json"
    text = record.dumps()
    edits = {
        "value": text.replace('"value": 1.0', '"value": 0.9'),
        "cost": text.replace('"peak_memory_mb": 1.0', '"peak_memory_mb": 0.9'),
        "digest": text.replace('"digest": "', '"digest": "0'),
    }
    for edited in edits.values():
        assert edited != text
        file.write_text(edited)
        with pytest.raises(UserError, match="was edited: its digest"):
            read_record(file)
    file.write_text(json.dumps(json.loads(text)))  # only written otherwise
    assert read_record(file).dumps() == text


@pytest.mark.parametrize("name", ["id", "spec", "measurements", "schema_version", "cost"])
def test_a_record_with_a_part_missing_is_refused(tmp_path: Path, name: str) -> None:
    content = json.loads(RunRecord(SPEC).dumps())
    del content[name]
    file = tmp_path / "record.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="record.json is not a record"):
        read_record(file)


def edited(change: Callable[[dict[str, Any]], object]) -> str:
    record = RunRecord(SPEC, status="complete", done=["fit"], timings={"fit": 0.1})
    record.measurements = [Measurement("fid", 1.0, "", False, 10)]
    content = json.loads(record.dumps())
    change(content)
    return json.dumps(content)


# All but the last three were accepted before types were checked.
STRICT = {
    "done should be a valid array": lambda record: record.update(done="fit"),
    "done.0 should be a valid string": lambda record: record.update(done=[1]),
    "status should be": lambda record: record.update(status="over"),
    "error should be a valid string": lambda record: record.update(error=0),
    "timings.fit should be a valid number": lambda record: record["timings"].update(fit="0.1"),
    "cost should be an object": lambda record: record.update(cost=[]),
    "invented is unknown": lambda record: record.update(invented=1),
    "spec.seed should be a valid integer, got True": lambda record: record["spec"].update(
        seed=True
    ),
    "spec.samples should be a valid integer": lambda record: record["spec"].update(samples=10.0),
    "spec.epsilon should be a valid number": lambda record: record["spec"].update(epsilon="1.0"),
    "spec.delta should be a valid number": lambda record: record["spec"].update(delta="1e-5"),
    "spec.adjacency should be": lambda record: record["spec"].update(adjacency="unknown"),
    "spec.reproducible should be a valid boolean": lambda record: record["spec"].update(
        reproducible=0
    ),
    "spec.schema_version should be 1 or 2, got 3": lambda record: record["spec"].update(
        schema_version=3
    ),
    "spec.compute.train_seconds should be a valid number": lambda record: record["spec"].update(
        compute={"train_seconds": True}
    ),
    "measurements.0.value should be a valid number": lambda record: record["measurements"][
        0
    ].update(value=True),
    "measurements.0.n should be a valid integer": lambda record: record["measurements"][0].update(
        n=10.0
    ),
    "expected value": lambda record: record["cost"].update(x=math.nan),
    "schema_version should be 1 or 2, got 3": lambda record: record.update(schema_version=3),
    "spec.invented is unknown": lambda record: record["spec"].update(invented=1),
    "measurements.0 fid: a missing value needs a reason": lambda record: record["measurements"][
        0
    ].update(value=None),
}


@pytest.mark.parametrize("message", STRICT)
def test_a_part_of_another_type_is_refused_in_a_line_that_names_it(
    tmp_path: Path, message: str
) -> None:
    file = tmp_path / "record.json"
    file.write_text(edited(STRICT[message]))
    with pytest.raises(UserError, match="is not a record of schema version 1 to 2: ") as refused:
        parse_record(file)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_every_committed_record_is_written_as_it_was_read() -> None:
    files = sorted((ROOT / "leaderboards" / "records").rglob("*.json"))
    assert files
    for file in files:
        record = read_record(file)
        if record.spec.schema_version == SCHEMA_VERSION:  # earlier ones are read and not written
            assert record.dumps() == file.read_text(encoding="utf-8"), file
        assert record.spec.id[:8] in file.name


def test_what_json_lacks_is_replaced() -> None:
    assert to_json({"a": (1, math.inf), "b": [-math.inf]}) == {"a": [1, "inf"], "b": ["-inf"]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        RunRecord(SPEC, cost={"x": math.nan}).dumps()


def test_records_are_found_at_any_depth(tmp_path: Path) -> None:
    for folder in ("b/c", "a"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "record.json").touch()
    assert [file.parent.name for file in find_records(tmp_path)] == ["a", "c"]
