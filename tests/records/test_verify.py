"""``dpbench verify``: what it says of honest records, and of every way to edit one by hand."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from dpbench.core.errors import UserError
from dpbench.data.catalog import CATALOG
from dpbench.privacy import dpsgd, ledger
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.certificate import Tuning, certify
from dpbench.privacy.events import DPSGDEvent, Event, GaussianEvent
from dpbench.privacy.ledger import PrivacyLedger
from dpbench.records.run_record import RunRecord, RunSpec
from dpbench.records.verify import verify
from tests.support import broken
from tests.support.command import TOY, Command
from tests.support.edited_records import Record, event, rewrite

CODE = {"package": "dpbench-images 0", "git_revision": None}
SIZE = CATALOG["digits"].train
TUNING = Tuning(preset="nothing was tuned", from_preset=[], by_hand=[], accounted=False)


def rewrite_counters(folder: Path, released: int, forge: bool) -> None:
    """Edit the file of counters; a forger writes its hash into the record."""
    file = folder / "releases.json"
    file.write_text(json.dumps([{"purpose": "mean image", "released": released}]))
    if forge:
        new = hashlib.sha256(file.read_bytes()).hexdigest()
        rewrite(folder, lambda record: record["artifacts"].update({file.name: new}), forge=True)


# Honest records.


def test_an_honest_run_is_verified_from_its_folder_or_file(dpbench: Command, run: Path) -> None:
    for path in (run, run / "record.json"):
        ended = dpbench("verify", path)
        assert ended.code == 0
        assert ended.out.splitlines()[0] == f"verified  {run / 'record.json'}"
        assert "not checked" not in ended.out and "wrong" not in ended.out
    (verdict,) = json.loads(dpbench("verify", run, "--json").out)
    assert verdict["verified"] is True
    assert verdict["epsilon"] == pytest.approx(verdict["recomputed"], rel=1e-9)
    assert (verdict["wrong"], verdict["unchecked"]) == ([], [])


@pytest.mark.parametrize(
    "options",
    [("--reproducible",), ("--eps", "inf"), ("--adjacency", "replace_one"), ("--delta", "1e-6")],
    ids=" ".join,
)
def test_so_is_an_honest_run_of_another_kind(
    dpbench: Command, toy: ModuleType, options: tuple[str, ...]
) -> None:
    assert dpbench(*TOY, *options, "--out", "here").code == 0
    ended = dpbench("verify", "here")
    assert ended.code == 0, ended.out


def test_a_record_without_its_files_says_what_was_not_checked(
    dpbench: Command, run: Path, tmp_path: Path
) -> None:
    shutil.copy(run / "record.json", tmp_path / "alone.json")
    ended = dpbench("verify", tmp_path / "alone.json")
    assert ended.code == 0
    assert "not checked: checkpoint.pt, releases.json, samples.npz, grid.png" in ended.out


# Edits by hand, one at a time.


def set_privacy(name: str, value: object) -> Callable[[Record], None]:
    return lambda record: record["privacy"].update({name: value})


def set_event(name: str, value: object) -> Callable[[Record], None]:
    return lambda record: event(record).update({name: value})


def longer(record: Record) -> None:
    event(record).update(steps=5, released=5)


def less_noise(record: Record) -> None:
    event(record)["noise_multiplier"] *= 0.999


def another_event(record: Record) -> None:
    record["privacy"]["events"].append({**event(record), "purpose": "more"})


def no_event(record: Record) -> None:
    record["privacy"]["events"].clear()


def smaller_cross_check(record: Record) -> None:
    record["privacy"]["cross_checks"][1]["epsilon"] *= 0.99


def no_certificate(record: Record) -> None:
    record["privacy"].clear()


def smaller_mu(record: Record) -> None:
    record["privacy"]["gaussian_dp"]["mu"] *= 0.999


def wider_range(record: Record) -> None:
    record["privacy"]["gaussian_dp"]["up_to_epsilon"] = "inf"


def untuned(record: Record) -> None:
    record["privacy"]["tuning"]["preset"] = "a paper"


def larger_budget(record: Record) -> None:
    record["spec"]["epsilon"] = 1.0


EDITS: dict[str, tuple[Callable[[Record], None], str]] = {
    "epsilon": (set_privacy("epsilon", 0.0009), "epsilon is 0.0009, but the events give 0.00"),
    "epsilon of infinity": (set_privacy("epsilon", "inf"), "epsilon is inf, but the events give"),
    "delta": (set_privacy("delta", 1e-6), "delta is 1e-06, but 1e-05 in the spec"),
    "adjacency": (
        set_privacy("adjacency", "replace_one"),
        "adjacency is replace_one, but add_remove in the spec",
    ),
    "release": (
        set_privacy("release", "not private"),
        "release is 'not private', but the spec gives 'valid'",
    ),
    "unit": (set_privacy("unit", "one pixel"), "privacy.unit should be "),
    "sigma": (less_noise, "but the events give 0.001"),
    "sigma below 0": (set_event("noise_multiplier", -1.0), "privacy.events.0"),
    "sample rate": (set_event("sample_rate", 0.011), "sample_rate of 'mean image' is 0.011, but"),
    "clipping norm": (set_event("clipping_norm", 0.0), "privacy.events.0"),
    "steps": (set_event("steps", 3), "3 releases of 'mean image' are accounted for, but the cert"),
    "steps and counter": (longer, "epsilon is"),
    "counter": (set_event("released", 5), "4 releases of 'mean image' are accounted for, but the"),
    "mechanism": (set_event("mechanism", "gaussian"), "privacy.events.0"),
    "purpose": (set_event("purpose", "mean"), "releases.json counts releases of other events"),
    "one more event": (another_event, "epsilon is"),
    "no event": (no_event, "but the events give 0 "),
    "cross-check": (smaller_cross_check, "RDP says 0.0"),
    "mu": (smaller_mu, "gaussian_dp is mu 0.000"),
    "range of mu": (wider_range, "up to epsilon inf, but the events give"),
    "no mu": (set_privacy("gaussian_dp", None), "gaussian_dp is there exactly if there is a bu"),
    "public size": (set_privacy("declared_size", 5), "declared_size is 5, but digits has 1437"),
    "neighbours": (set_privacy("neighbours", "none"), "neighbours does not say what the adj"),
    "tuning": (untuned, "tuning.preset is 'a paper', but \"the method's defaults\" in resolved"),
    "certificate": (no_certificate, "there is no certificate: the run is 'complete'"),
    "budget": (larger_budget, "its id is not that of its spec"),
}


@pytest.mark.parametrize("forge", [False, True], ids=["by hand", "with a new digest"])
@pytest.mark.parametrize("name", EDITS)
def test_an_edited_record_is_rejected(dpbench: Command, run: Path, name: str, forge: bool) -> None:
    edit, line = EDITS[name]
    rewrite(run, edit, forge)
    ended = dpbench("verify", run)
    assert ended.code == 1
    assert not ended.err.startswith("Error")
    first, *others = ended.out.splitlines()
    assert first == f"REJECTED  {run / 'record.json'}"
    wrong = [each.strip() for each in others if each.startswith("  wrong: ")]
    assert any(line in each for each in wrong), ended.out
    assert any("its digest is not that of its content" in each for each in wrong) != forge


def test_a_run_whose_audit_refutes_its_claim_is_rejected_in_one_line(
    dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    audited = (*TOY, "--evaluators", "audit", "--out", "here")
    assert dpbench(*audited).code == 0
    assert dpbench("verify", "here").code == 0
    monkeypatch.setattr(dpsgd, "gaussian_noise", broken.noise.scaled_by(0.9))
    assert dpbench(*audited, "--overwrite").code == 0
    ended = dpbench("verify", "here")
    assert ended.code == 1
    (line,) = (line for line in ended.out.splitlines() if "wrong" in line)
    assert re.search(r"its audit refutes the claim \(audit_alarms is \d+\): do not use its", line)


def test_every_wrong_thing_has_its_line(dpbench: Command, run: Path) -> None:
    def several(record: Record) -> None:
        record["privacy"].update(delta=1e-6, epsilon=0.5)
        record["measurements"][0]["value"] = 0.25
        event(record)["released"] = 2

    rewrite(run, several)
    (verdict,) = json.loads(dpbench("verify", run, "--json").out)
    assert verdict["verified"] is False
    assert len(verdict["wrong"]) == 8
    for part in ("digest", "epsilon is 0.5", "delta is", "counts 2", "PRV says", "RDP says", "mu"):
        assert any(part in line for line in verdict["wrong"]), part


# Edits in several places that agree with each other.


def test_steps_edited_everywhere_give_another_epsilon(dpbench: Command, run: Path) -> None:
    def fewer(record: Record) -> None:
        event(record).update(steps=3, released=3)
        record["spec"]["method_args"]["steps"] = 3

    rewrite(run, fewer)
    rewrite_counters(run, 3, forge=True)
    lines = "".join(verify(run / "record.json").wrong)
    assert "epsilon is" in lines and "releases" not in lines


def test_an_epsilon_over_budget_is_rejected_even_where_it_follows(run: Path) -> None:
    honest = verify(run / "record.json").recomputed
    assert honest is not None

    def louder(record: Record) -> None:
        event(record)["noise_multiplier"] /= 2

    rewrite(run, louder, forge=True)
    found = verify(run / "record.json").recomputed
    rewrite(run, set_privacy("epsilon", found), forge=True)
    verdict = verify(run / "record.json")
    assert any("over the budget of 0.001" in line for line in verdict.wrong)


def test_counters_beside_the_checkpoint_are_compared(dpbench: Command, run: Path) -> None:
    counted = json.loads((run / "releases.json").read_text())
    assert counted == [{"purpose": "mean image", "released": 4}]
    rewrite_counters(run, 5, forge=False)
    assert "releases.json is not the file that the run wrote" in dpbench("verify", run).out
    rewrite_counters(run, 5, forge=True)
    ended = dpbench("verify", run)
    assert ended.code == 1
    assert "4 releases of 'mean image' are accounted for, but releases.json counts 5" in ended.out
    (run / "releases.json").write_text("no JSON")
    assert "releases.json cannot be read" in dpbench("verify", run).out


def test_a_file_that_was_replaced_is_noticed_and_never_unpickled(
    dpbench: Command, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.load", lambda *_, **__: pytest.fail("something was unpickled"))
    (run / "checkpoint.pt").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    ended = dpbench("verify", run)
    assert ended.code == 1
    assert "checkpoint.pt is not the file that the run wrote" in ended.out


@pytest.mark.parametrize("name", ["../secret", "/secret", "..", "", "a/b"])
def test_a_record_names_no_files_elsewhere(run: Path, name: str) -> None:
    rewrite(run, lambda record: record["artifacts"].update({name: "00"}), forge=True)
    with pytest.raises(UserError, match="record.json is not a record .*artifacts"):
        verify(run / "record.json")


def test_nor_by_a_link(run: Path) -> None:
    (run / "grid.png").rename(run.parent / "elsewhere.png")
    (run / "grid.png").symlink_to(run.parent / "elsewhere.png")
    assert "grid.png is a link to a file elsewhere" in verify(run / "record.json").wrong


def test_a_new_certificate_cannot_shed_what_it_has(run: Path) -> None:
    text = (run / "record.json").read_text()
    for part in ("cross_checks", "code", "not_covered", "accountant", "gaussian_dp", "tuning"):
        rewrite(run, lambda record, part=part: record["privacy"].pop(part), forge=True)
        assert any(
            f"privacy.{part} is missing" == line for line in verify(run / "record.json").wrong
        )
        (run / "record.json").write_text(text)
    rewrite(run, lambda record: record.pop("digest"))
    assert "there is no digest" in verify(run / "record.json").wrong
    (run / "record.json").write_text(text)
    rewrite(run, lambda record: record["artifacts"].pop("releases.json"), forge=True)
    assert "there is no hash of releases.json" in verify(run / "record.json").wrong


def test_another_version_of_the_accountant_is_allowed_its_rounding(run: Path) -> None:
    def other(record: Record) -> None:
        record["privacy"]["accountant"] = "dp-accounting 9.9 PLD"
        record["privacy"]["epsilon"] *= 1 + 3e-4

    rewrite(run, other, forge=True)
    verdict = verify(run / "record.json")
    assert verdict.verified
    assert any("it was computed by dp-accounting 9.9 PLD" in line for line in verdict.unchecked)
    rewrite(run, set_privacy("accountant", ledger.ACCOUNTANT), forge=True)
    assert any("epsilon is" in line for line in verify(run / "record.json").wrong)


def written(folder: Path, event: Event, dataset: str = "digits", **args: object) -> Path:
    """A record, by hand, of a run that spent one event."""
    budget = PrivacyBudget(10.0)
    spent = PrivacyLedger(budget)
    allowance = spent.spend(event)
    for step in range(event.steps):
        allowance.release(step)
    spec = RunSpec(
        *("by-hand", "by-hand 1", args, dataset, "00ff", budget.epsilon, budget.delta),
        *(budget.adjacency, 0, "smoke", {}, 10),
    )
    record = RunRecord(spec, status="complete", privacy=certify(spent, False, CODE, SIZE, TUNING))
    record.cost = {"private_evaluations": 450, "public_evaluations": 0}
    record.timings = {"fit": 1.0}
    record.artifacts["releases.json"] = "00"
    (folder / "record.json").write_text(record.dumps())
    return folder / "record.json"


@pytest.mark.parametrize("name, value", [("steps", 4), ("batch_size", 140), ("clipping_norm", 0.4)])
def test_an_event_and_the_hyper_parameters_of_the_same_name_must_agree(
    tmp_path: Path, name: str, value: float
) -> None:
    train = CATALOG["digits"].train
    args = {"steps": 3, "batch_size": 150, "clipping_norm": 0.5, "learning_rate": 0.1}
    training = DPSGDEvent(150 / train, 2.0, 0.5, 3, "weights")
    assert verify(written(tmp_path, training, **args)).verified
    (line,) = verify(written(tmp_path, training, **{**args, name: value})).wrong
    event_name = "sample_rate" if name == "batch_size" else name
    assert line.startswith(f"{event_name} of 'weights' is ")
    total = GaussianEvent(4.0, 0.5, "sum")
    assert verify(written(tmp_path, total, **args)).verified, "steps and batches are not its own"
    assert bool(verify(written(tmp_path, total, **{name: value})).wrong) == (name in vars(total))


def test_the_sample_rate_on_a_set_of_unknown_size_is_said_to_be_unchecked(tmp_path: Path) -> None:
    training = DPSGDEvent(0.1, 2.0, 0.5, 3, "weights")
    verdict = verify(written(tmp_path, training, "imagefolder:pets", batch_size=150))
    assert verdict.verified
    assert "sample_rate: the size of imagefolder:pets is not known here" in verdict.unchecked


# What is no record.


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"schema_version": 7}'], ids=lambda text: text or "nothing"
)
def test_what_is_no_record_is_the_users_mistake(
    dpbench: Command, tmp_path: Path, text: str
) -> None:
    (tmp_path / "record.json").write_text(text)
    ended = dpbench("verify", tmp_path)
    assert ended.code == 2
    assert f"Error: {tmp_path / 'record.json'}" in ended.err
    assert "Traceback" not in ended.err


def test_what_is_not_there_is_too_and_the_others_are_checked(dpbench: Command, run: Path) -> None:
    ended = dpbench("verify", "nowhere", run)
    assert ended.code == 2
    assert "there is no record at nowhere" in ended.err
    assert ended.out.startswith("verified  ")
    assert dpbench("verify").code == 2


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda record: record.update(privacy=[]), "privacy should be an object"),
        (lambda record: record.update(artifacts=3), "artifacts should be an object"),
        (lambda record: record.update(id=None), "id should be a valid string"),
        (lambda record: record["spec"].update(extra=1), "spec.extra is unknown"),
    ],
)
def test_so_is_one_of_another_shape(
    dpbench: Command, run: Path, edit: Callable[[Record], None], named: str
) -> None:
    rewrite(run, edit)
    ended = dpbench("verify", run)
    assert ended.code == 2
    assert f"is not a record of schema version 1 to 2: {named}" in ended.err
