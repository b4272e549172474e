"""``dpbench verify`` on committed records from before records had versions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from dpbench.records.contradictions import EARLIER_CERTIFICATE, EARLIER_RECORD
from dpbench.records.verify import verify
from tests.support.command import Command
from tests.support.edited_records import Record, event, rewrite

ROOT = Path(__file__).parent.parent.parent


def test_committed_records_are_verified_as_far_as_they_go(dpbench: Command) -> None:
    files = sorted((ROOT / "leaderboards" / "records").rglob("*.json"))
    assert files
    verdicts = json.loads(dpbench("verify", *files, "--json").out)
    assert [verdict["record"] for verdict in verdicts] == list(map(str, files))
    for verdict in verdicts:
        assert verdict["verified"], verdict
        assert verdict["unchecked"]


def test_a_record_from_before_says_what_can_be_said_of_it(dpbench: Command) -> None:
    old = next((ROOT / "leaderboards" / "records").rglob("dpsyngen/*.json"))
    ended = dpbench("verify", old)
    assert ended.code == 0
    lines = [line.strip() for line in ended.out.splitlines()]
    for line in (EARLIER_CERTIFICATE, EARLIER_RECORD):
        assert f"not checked: {line}" in lines
    assert any(line.startswith("epsilon ") for line in lines)


def test_an_earlier_certificate_is_held_to_what_it_has(tmp_path: Path) -> None:
    old = next((ROOT / "leaderboards" / "records").rglob("dpsyngen/*.json"))
    shutil.copy(old, tmp_path / "record.json")
    for name, value in (("noise_multiplier", 0.6), ("steps", 90), ("sample_rate", 0.016)):
        rewrite(tmp_path, lambda record, n=name, v=value: event(record).update({n: v}))
        assert any("epsilon is" in line for line in verify(tmp_path / "record.json").wrong)
        shutil.copy(old, tmp_path / "record.json")


def test_a_new_record_cannot_pass_for_one_from_before(run: Path) -> None:
    def shed(version: int | None) -> Callable[[Record], None]:
        def edit(record: Record) -> None:
            for name in ("gaussian_dp", "declared_size", "neighbours", "tuning"):
                record["privacy"].pop(name, None)
            record["privacy"].pop("certificate_version", None)
            if version:
                record["privacy"]["certificate_version"] = version

        return edit

    rewrite(run, shed(2), forge=True)
    expected = "records of schema version 2 have certificates of version 3"
    assert expected in verify(run / "record.json").wrong
    rewrite(run, shed(None), forge=True)
    rewrite(run, lambda record: record.pop("digest"))
    wrong = verify(run / "record.json").wrong
    assert {"there is no digest", "privacy.certificate_version is missing"} <= {*wrong}
