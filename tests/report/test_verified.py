"""A report takes in no record that ``verify`` would reject, and loses no other for it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpbench.core.cache import Cache
from dpbench.core.files import sha256
from dpbench.privacy.events import DPSGDEvent
from dpbench.records import accounts
from dpbench.records.accounts import Accounts, check_size
from dpbench.records.run_record import RunRecord, digest
from dpbench.report import collect
from tests.support.certified import certificate
from tests.support.command import Command
from tests.support.reports import SPEC, finished, keep, keep_tested, table

Content = dict[str, Any]
GOOD = replace(SPEC, seed=7)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def forge(file: Path, edit: Callable[[Content], object], digested: bool = True) -> None:
    content = json.loads(file.read_text())
    edit(content)
    if digested:
        content["digest"] = digest(content)
    file.write_text(json.dumps(content))


def event(content: Content) -> Content:
    found: Content = content["privacy"]["events"][0]
    return found


def privacy(**values: object) -> Callable[[Content], object]:
    return lambda content: content["privacy"].update(values)


def doubled(content: Content) -> None:
    content["privacy"]["events"].append({**event(content), "purpose": "more"})


FORGED: dict[str, tuple[Callable[[Content], object], str]] = {
    "epsilon": (privacy(epsilon=0.01), "epsilon is 0.01, but the events give 0."),
    "no event": (lambda content: content["privacy"]["events"].clear(), "but the events give 0"),
    "events doubled": (doubled, "epsilon is 0."),
    "less noise": (lambda content: event(content).update(noise_multiplier=0.5), "epsilon is 0."),
    "infinite epsilon": (privacy(epsilon="inf"), "epsilon is inf, but the events give 0."),
    "noise of text": (
        lambda content: event(content).update(noise_multiplier="4"),
        "privacy.events.0.gaussian.noise_multiplier should be a valid number",
    ),
    "release": (privacy(release="not private"), "release is 'not private', but the spec gives"),
    "no version": (
        lambda content: content["privacy"].pop("certificate_version"),
        "privacy.certificate_version is missing",
    ),
    "cost of nothing": (lambda content: content["cost"].clear(), "there is no cost.private_eval"),
    "time of text": (
        lambda content: content["timings"].update(fit="long"),
        "timings.fit should be a valid number",
    ),
    "set by hand": (
        lambda content: content["resolved"].update(by_hand=["nope"]),
        "tuning.by_hand is [], but ['nope'] in resolved",
    ),
    "method": (
        lambda content: content["spec"].update(method="../../../../escaped"),
        "spec.method should match pattern",
    ),
    "seed": (
        lambda content: content["spec"].update(seed="0/../../../../escaped"),
        "spec.seed should be a valid integer",
    ),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_bad_record_of_a_run_is_left_out_and_named_and_the_others_are_not(
    dpbench: Command, name: str
) -> None:
    keep(finished(SPEC, 50.0), finished(GOOD, 60.0))
    file = "runs" / SPEC.folder / "record.json"
    edit, line = FORGED[name]
    forge(file, edit)
    ended = dpbench("report")
    assert ended.code == 1
    named = [each for each in ended.err.splitlines() if str(file) in each]
    assert len(named) == 1 and named[0].startswith("Error: left out: ") and line in named[0]
    assert "Error: 1 record was left out: see above" in ended.err
    assert [row["mean"] for row in table()] == ["60.0"]


def test_a_report_that_verifies_nothing_is_noticed(
    dpbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "check_committed", lambda verdict: None)
    keep(finished(SPEC, 50.0), finished(GOOD, 60.0))
    forge("runs" / SPEC.folder / "record.json", FORGED["epsilon"][0])
    assert dpbench("report").code == 0 and len(table()[0]["records"].split()) == 2


@pytest.mark.parametrize("command", [("report",), ("report", "--check"), ("claims",)], ids=" ".join)
def test_a_bad_committed_record_is_refused_before_anything_is_written(
    dpbench: Command, command: tuple[str, ...]
) -> None:
    keep(finished(SPEC, 50.0))
    dpbench("report")
    (file,) = Path("leaderboards/records").rglob("*.json")
    forge(file, FORGED["epsilon"][0])
    shutil.rmtree("runs")
    keep(finished(GOOD, 60.0))
    before = {each: each.read_bytes() for each in Path("leaderboards").rglob("*.*")}
    ended = dpbench(*command)
    assert ended.code == 2
    assert ended.err.startswith(f"Error: {file} is rejected: epsilon is 0.01, but the events give")
    assert len(ended.err.splitlines()) == 1
    assert {each: each.read_bytes() for each in Path("leaderboards").rglob("*.*")} == before


@pytest.mark.parametrize("part", ["digest", "certificate_version"])
def test_a_record_cannot_shed_what_reveals_its_edits(dpbench: Command, part: str) -> None:
    keep(finished(SPEC, 50.0))
    file = "runs" / SPEC.folder / "record.json"

    def shed(content: Content) -> None:
        content["measurements"][0]["value"] = 99.0
        content.pop("digest")
        if part != "digest":
            content["privacy"].pop(part)

    forge(file, shed, digested=False)
    ended = dpbench("verify", file)
    assert ended.code == 1 and ended.out.startswith("REJECTED") and "no digest" in ended.out
    ended = dpbench("report")
    assert f"{file} is rejected: there is no digest" in ended.err
    assert not Path("leaderboards/digits.csv").exists()


@pytest.mark.parametrize(
    "name", ["samples.npz", "checkpoint.pt", "grid.png", "evaluation-some.npz"]
)
def test_files_that_a_run_did_not_write_keep_it_out(dpbench: Command, name: str) -> None:
    keep_tested(SPEC, 0.8)
    keep(finished(GOOD, 60.0))
    folder = "runs" / SPEC.folder
    if not (folder / name).exists():
        (folder / name).write_bytes(b"written")
    forge(
        folder / "record.json",
        lambda content: content["artifacts"].update({name: sha256(folder / name)}),
    )
    assert dpbench("report").code == 0
    (folder / name).write_bytes(b"of somebody else")
    ended = dpbench("report")
    assert ended.code == 1
    assert f"{folder / 'record.json'} is rejected: {name} is not the file that the run" in ended.err


def test_an_archive_that_is_none_is_named(dpbench: Command) -> None:
    keep_tested(SPEC, 0.8)
    folder = "runs" / SPEC.folder
    file = folder / "evaluation-some.npz"
    huge = np.lib.format.magic(1, 0) + b"\x76\x00{'descr': '|u1', 'fortran_order': False, "
    for content in (b"junk", huge + b"'shape': (99999999999999,)}" + b" " * 30):
        file.write_bytes(content)
        forge(
            folder / "record.json",
            lambda content: content["artifacts"].update({file.name: sha256(file)}),
        )
        ended = dpbench("report")
        assert f"Error: left out: {file} holds no predictions" in ended.err, ended.err


# Numbers that are remembered.


def test_what_is_remembered_is_not_computed_again_and_cannot_be_passed_on(
    dpbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(finished(SPEC, 50.0), finished(GOOD, 60.0))
    assert dpbench("report").code == 0
    with monkeypatch.context() as patch:
        for module in (accounts.accountant, accounts.crosschecks, accounts.gaussian_dp):
            name = module.__name__.rpartition(".")[2].replace("crosschecks", "cross_checks")
            patch.setattr(module, name, lambda *_: pytest.fail("computed again"))
        assert dpbench("report").code == 0
    forge("runs" / SPEC.folder / "record.json", FORGED["epsilon"][0])
    ended = dpbench("report")
    assert ended.code == 1 and "epsilon is 0.01, but the events give" in ended.err


def test_numbers_are_remembered_by_all_that_they_depend_on(tmp_path: Path) -> None:
    first, second = DPSGDEvent(0.01, 2.0, 1.0, 30, "w"), DPSGDEvent(0.01, 2.0, 1.0, 31, "w")
    cache = Cache(tmp_path)
    known = Accounts(cache)
    asked = [((first,), 1e-5), ((second,), 1e-5), ((first,), 1e-6), ((first, second), 1e-5)]
    found = [known.epsilon(*each, "add_remove") for each in asked]
    found.append(known.epsilon((first,), 1e-5, "replace_one"))
    assert len(set(found)) == 5
    known.save()
    again = Accounts(cache)
    assert [again.epsilon(*each, "add_remove") for each in asked] == found[:4]
    assert len(json.loads((tmp_path / accounts.REMEMBERED).read_text().partition("\n")[2])) == 5


@pytest.mark.parametrize(
    ("training", "claim"),
    [
        (DPSGDEvent(0.01, 500.0, 1.0, 10**9, "w"), 1.0),
        (DPSGDEvent(1.0, 0.1, 1.0, 10**5, "w"), 1.0),
        (DPSGDEvent(1e-9, 0.1, 1.0, 1, "w"), 1e-9),
    ],
    ids=["many", "loud", "fine"],
)
def test_events_that_would_take_all_memory_are_refused(training: DPSGDEvent, claim: float) -> None:
    with pytest.raises(ValueError, match="more than can be checked|too loud to be checked"):
        check_size([training], "add_remove", claim)
    for steps, rate, noise, claim in (
        (1000, 0.02, 0.6, 20),
        (15000, 0.1, 50.0, 2),
        (4, 0.01, 50, 1e-3),
    ):
        check_size([DPSGDEvent(rate, noise, 1.0, steps, "w")], "replace_one", claim)


def test_a_billion_steps_are_rejected_in_a_line(dpbench: Command) -> None:
    keep(finished(SPEC, 50.0))
    file = "runs" / SPEC.folder / "record.json"
    steps = {
        "mechanism": "dp_sgd",
        **{"sample_rate": 0.01, "noise_multiplier": 500.0, "clipping_norm": 1.0},
        **{"steps": 10**9, "purpose": "weights", "released": 10**9},
    }
    forge(file, lambda content: content["privacy"].update(events=[steps]))
    ended = dpbench("verify", file)
    assert ended.code == 1
    assert "1,000,000,000 releases in 1 events are more than can be checked" in ended.out


# The work that was done.


def trained(evaluations: int, allowed: float = 20_000, epsilon: float = 10.0) -> RunRecord:
    training = DPSGDEvent(100 / 1437, 2.0, 1.0, 100, "weights")
    compute = {"private_evaluations": allowed}
    spec = replace(SPEC, epsilon=epsilon, compute=compute, method_args={})
    cost = {"private_evaluations": evaluations, "public_evaluations": 0}
    return finished(spec, 50.0, privacy=certificate(spec, training), cost=cost)


@pytest.mark.parametrize("epsilon", [10.0, math.inf])
def test_fewer_evaluations_than_the_events_are_of_are_rejected(
    dpbench: Command, epsilon: float
) -> None:
    for place, (record, line) in enumerate(
        [
            (trained(4, epsilon=epsilon), "is 4, but the events are of at least 10,000 gradient"),
            (trained(9_999, epsilon=epsilon), "is 9,999, but the events are of at least 10,000"),
            (
                trained(10_000, 8_000, epsilon),
                "is 10,000, over the 8,000 that profile laptop allow",
            ),
            (trained(10_000, epsilon=epsilon), ""),
            (trained(20_000, epsilon=epsilon), ""),  # two copies of each image
        ]
    ):
        file = Path(f"{place}.json")
        file.write_text(record.dumps())
        ended = dpbench("verify", file)
        assert (ended.code == 1) == bool(line) and line in ended.out, ended.out
