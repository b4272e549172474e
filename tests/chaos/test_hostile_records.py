"""Hostile records and scores, whose id and digest fit what they say."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpbench.core.canonical import sha256_of
from dpbench.records.run_record import digest
from tests.support.chaos import Place
from tests.support.chaos_hostile import FAMILY, Arguments, Prepare, cases, harmless, kind_of
from tests.support.chaos_runs import COMMAND, Lab

pytestmark = [pytest.mark.chaos(FAMILY)]

Record = dict[str, Any]
COMMANDS: tuple[Arguments, ...] = (
    ("report", "--runs-dir", ".", "--all", "--out", "lb"),
    ("verify", "here"),
    COMMAND,
    ("evaluate", "here", "--evaluators", "toy"),
)
ESCAPES = ("../../../../escaped", "/escaped", "..", "a/b", "x" * 400, "a\0b")
SHOWN = (
    *("\x1b[31mred\x1b[0m", "[red]x[/]", ":one:", "=1+1", "@SUM(A1)", "+1", "\u202etxt"),
    *("<script>alert(1)</script>", "a\nb", "a,b\"c'd"),
)
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**400, 1e308, math.nan, math.inf, "", "inf", "x" * 100_000),
    *([], {}, [[]], {"a": {"b": 1}}, ["x"] * 1000, "\ud800"),
)


def put(path: str, value: Any) -> Callable[[Record], None]:
    """Set a part of a record, named by keys and indices with dots between them."""

    def change(record: Record) -> None:
        *above, last = path.split(".")
        part: Any = record
        for key in above:
            part = part[int(key)] if isinstance(part, list) else part[key]
        if isinstance(part, list):
            part[int(last)] = value
        else:
            part[last] = value

    return change


def write(file: Path, record: Record) -> None:
    """Write a record with the id and the digest that it should have, where there can be some."""
    try:
        record["id"] = sha256_of(record["spec"])
        record["digest"] = digest(record)
    except (ValueError, KeyError, TypeError, OverflowError, UnicodeError):
        pass  # what is in it has no canonical form
    file.write_text(json.dumps(record), "utf-8", "surrogatepass")


def changed(lab: Lab, change: Callable[[Record], None], arguments: Arguments) -> Prepare:
    def prepare(place: Place) -> Arguments:
        shutil.copytree(lab.folder, place.work / "here")
        file = place.work / "here" / "record.json"
        record = json.loads(file.read_text())
        change(record)
        write(file, record)
        return arguments

    return prepare


def replaced(lab: Lab, content: bytes, arguments: Arguments) -> Prepare:
    def prepare(place: Place) -> Arguments:
        shutil.copytree(lab.folder, place.work / "here")
        (place.work / "here" / "record.json").write_bytes(content)
        return arguments

    return prepare


def changes() -> dict[str, Callable[[Record], None]]:
    found = {}
    for value in ESCAPES:
        for part in ("spec.method", "spec.dataset", "spec.seed", "spec.profile", "status"):
            found[f"{part} {value[:20]!r}"] = put(part, value)
    for value in SHOWN:
        for part in ("spec.method", "measurements.0.metric", "measurements.0.reason"):
            found[f"{part} {value[:20]!r}"] = put(part, value)
        found[f"metric {value[:20]!r} without a value"] = put("measurements.0.metric", value)
    for part in ("privacy.release", "measurements.0.unit", "measurements.0.version", "error"):
        for value in SHOWN[:3]:
            found[f"{part} {value[:20]!r}"] = put(part, value)
    for name in ("artifacts", "evaluators"):
        for value in ESCAPES[:3]:
            found[f"{name} of {value!r}"] = put(name, {value: "0" * 64})
    for part, value in (
        ("privacy.events.0.steps", 10**9),
        ("privacy.events.0.steps", 10**300),
        ("privacy.events.0.sample_rate", 1e-300),
        ("privacy.events.0.noise_multiplier", "x"),
        ("privacy.events.0.noise_multiplier", 1e-300),
        ("privacy.events.0.mechanism", "os.system"),
        ("privacy.events", [{"mechanism": "dp_sgd"}] * 1000),
        ("privacy.epsilon", "inf"),
        ("privacy.certificate_version", 10**30),
        ("measurements", [{}]),
        ("spec.method_args", {"steps": {"a": [1] * 1000}}),
        ("spec.compute", {"private_evaluations": "inf"}),
    ):
        found[f"{part} {str(value)[:20]}"] = put(part, value)
    return found


PARTS = (
    *("schema_version", "id", "status", "done", "evaluators", "resolved", "privacy", "timings"),
    *("measurements", "cost", "environment", "artifacts", "error", "digest", "spec", "spec.seed"),
    *("spec.epsilon", "spec.delta", "spec.samples", "spec.method_args", "spec.public"),
    *("privacy.events", "privacy.epsilon", "measurements.0.value", "measurements.0.n"),
    *("resolved.gradients", "resolved.sittings", "cost.private_evaluations", "evaluators.toy"),
)


def wrong_types(count: int) -> dict[str, Callable[[Record], None]]:
    rng = random.Random("types of parts")
    pairs = [(part, index) for part in PARTS for index in range(len(ODD))]
    chosen = rng.sample(pairs, count)
    return {f"{part} {str(ODD[i])[:12]!r} {i}": put(part, ODD[i]) for part, i in chosen}


CONTENTS = {
    "brackets": b"[" * 100_000,
    "deep": b'{"spec": ' + b'{"a": ' * 100_000 + b"1" + b"}" * 100_001,
    "a long number": b'{"schema_version": ' + b"9" * 1_000_000 + b"}",
    "no text": b"\xff\xfe\x00{}",
    "a mark": b"\xef\xbb\xbf{}",
    "twice": b'{"id": "a", "id": "b"}',
    "nothing": b"",
    "null": b"null",
    "large": b'{"id": "' + b"x" * 50_000_000 + b'"}',
    "many": b"[" + b"{}," * 1_000_000 + b"{}]",
}


def made(count: int) -> dict[str, tuple[str, object, Arguments]]:
    """So many cases, whose commands take turns; reports are asked most, since they write names."""
    rng = random.Random("records")
    every = {**changes(), **wrong_types(80)}
    names = rng.sample(sorted(every), len(every))
    turns = (0, 1, 0, 2, 0, 1, 3)
    found: dict[str, tuple[str, object, Arguments]] = {}
    for name, content in CONTENTS.items():
        found[f"{name} to report"] = ("content", content, COMMANDS[0])
        found[f"{name} to verify"] = ("content", content, COMMANDS[1])
    for index, name in enumerate(names[: count - len(found)]):
        arguments = COMMANDS[turns[index % len(turns)]]
        found[f"{name} to {arguments[0]}"] = ("change", every[name], arguments)
    return found


@pytest.mark.parametrize("case", cases(made(104)))
def test_a_hostile_record_does_no_harm(
    case: tuple[str, Any, Arguments],
    place: Place,
    lab: Lab,
    record_property: Callable[[str, object], None],
) -> None:
    kind, what, arguments = case
    prepare = (replaced if kind == "content" else changed)(lab, what, arguments)
    ended = harmless(lab.warm(place), prepare(place))
    record_property("detail", kind_of(ended))
