"""Damaged and forged records: one line with the record's name, and the others are looked at."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpbench.core.files import safe_name
from tests.support.command import Command
from tests.support.reports import SPEC, finished, keep, table

Damage = Callable[[bytes], bytes]


def with_json(edit: Callable[[Any], object]) -> Damage:
    def damage(text: bytes) -> bytes:
        content = json.loads(text)
        edit(content)
        return json.dumps(content).encode()

    return damage


DAMAGES: dict[str, Damage] = {
    "nothing": lambda text: b"",
    "cut": lambda text: text[: len(text) // 2],
    "zeros": lambda text: b"\0" * len(text),
    "no UTF-8": lambda text: text.replace(b"toy", b"to\xff"),
    "nested": lambda text: b"[" * 100_000,
    "nested names": lambda text: b'{"a":' * 100_000,
    "nested in a part": lambda text: text.replace(
        b'"resolved": {', b'"resolved": {"a": ' + b"[" * 300
    ),
    "many digits": lambda text: text.replace(b'"samples": 10', b'"samples": 1' + b"0" * 5000),
    "too large": lambda text: text + b" " * 2**24,
    "NaN": lambda text: text.replace(b'"value": 50.0', b'"value": NaN'),
    "1e999": lambda text: text.replace(b'"value": 50.0', b'"value": 1e999'),
    "an integer of 100 digits": with_json(
        lambda content: content["measurements"][0].update(value=10**100)
    ),
    "a name of a megabyte": with_json(lambda content: content.update({"x" * 2**20: 1})),
    "lone surrogate": lambda text: text.replace(b'"digits"', b'"\\udce9"'),
    "list": lambda text: b"[]",
    "measurements": with_json(lambda content: content.update(measurements={})),
    "value of text": with_json(lambda content: content["measurements"][0].update(value="50")),
    "privacy": with_json(lambda content: content.update(privacy=None)),
    "by_hand": with_json(lambda content: content["resolved"].update(by_hand="nope")),
    "pretrained": with_json(lambda content: content["resolved"].update(pretrained=[0])),
    "departures": with_json(lambda content: content["resolved"].update(departures=[3])),
    "cost": with_json(lambda content: content["cost"].update(private_evaluations="4")),
    "timings": with_json(lambda content: content["timings"].update(fit=None)),
    "artifacts": with_json(lambda content: content["artifacts"].update({"../a": "00"})),
    "seed": with_json(lambda content: content["spec"].update(seed=-1)),
    "negative n": with_json(lambda content: content["spec"].update(samples=-1)),
    "version": with_json(lambda content: content.update(schema_version=7)),
}


@pytest.fixture
def good(dpbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    record = finished(SPEC, 50.0)
    keep(record)
    return Path("runs") / record.spec.folder / "record.json"


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_record_is_one_line_and_loses_no_other(
    dpbench: Command, good: Path, name: str
) -> None:
    bad = Path("runs/bad/record.json")
    bad.parent.mkdir()
    damaged = DAMAGES[name](good.read_bytes())
    assert damaged != good.read_bytes()
    bad.write_bytes(damaged)
    ended = dpbench("verify", ".")
    assert ended.code == 2
    assert ended.out.startswith(f"verified  {good}")
    (line,) = [each for each in ended.err.splitlines() if "Error" in each]
    assert str(bad) in line and len(line) < 1000
    ended = dpbench("report")
    assert ended.code == 1
    first, last = [each for each in ended.err.splitlines() if "Error" in each]
    assert str(bad) in first and len(first) < 1000 and "1 record was left out" in last
    assert [row["mean"] for row in table()] == ["50.0"]


def test_the_others_are_looked_at_in_any_order(dpbench: Command, good: Path) -> None:
    Path("bad.json").write_bytes(b"[" * 100_000)
    for paths in (("bad.json", good), (good, "bad.json"), ("bad.json", "runs")):
        ended = dpbench("verify", *paths)
        assert ended.code == 2 and ended.out.startswith(f"verified  {good}")


def test_what_is_no_regular_file_is_no_record(dpbench: Command, good: Path) -> None:
    Path("runs/pipe").mkdir()
    os.mkfifo("runs/pipe/record.json")
    Path("runs/folder/record.json").mkdir(parents=True)
    assert dpbench("verify", "runs").code == 0
    assert dpbench("report").code == 0


def test_committed_records_are_verified_by_their_folder(dpbench: Command, good: Path) -> None:
    dpbench("report")
    shutil.rmtree("runs")
    ended = dpbench("verify", "leaderboards")
    assert ended.code == 0 and ended.out.count("verified  leaderboards/records/") == 1
    assert "there is no record at nowhere" in dpbench("verify", "nowhere").err


@pytest.mark.parametrize(
    "name", ["..", ".", "", "../../x", "/abs", "a\0b", "x" * 300, "\udce9", "é" * 200]
)
def test_every_name_is_one_part_of_a_path(tmp_path: Path, name: str) -> None:
    safe = safe_name(name)
    assert safe not in ("", ".", "..") and "/" not in safe and len(safe.encode()) < 200
    (tmp_path / f"{safe}.comparisons.csv").write_text("")
    assert [each.parent for each in tmp_path.iterdir()] == [tmp_path]
