from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType

import pytest

from dpbench.api.profiles import PROFILES
from dpbench.claims import arms, published
from dpbench.claims.arms import Arm
from dpbench.claims.published import CLAIMS
from dpbench.claims.rules import Claim, Measured, Paired, Reading, Rule, Trend
from dpbench.claims.values import Metric
from dpbench.claims.verdicts import ClaimVerdict, judge
from dpbench.cli.claims import _missing
from dpbench.core.metrics import Measurement
from dpbench.core.registry import entries, load
from dpbench.data.catalog import CATALOG
from dpbench.privacy import mechanisms
from dpbench.records.run_record import RunRecord, RunSpec
from dpbench.runs.hyperparameters import resolve
from dpbench.runs.request import plan
from dpbench.runs.sweep import execute
from tests.support.command import Command, Ended

NEW, OLD = Arm("new", 1.0), Arm("old", 1.0)
FD, CAS = Metric("fd", "fidelity"), Metric("cas", "cas")
NOISE = (0.1, -0.1, 0.05, -0.05, 0.0)


def run(arm: Arm, seed: int, *measured: Measurement, **spec: object) -> RunRecord:
    asked = RunSpec(
        method=arm.method,
        method_version="toy 1.0",
        method_args={"steps": 3, **arm.values},
        dataset=arm.dataset,
        dataset_hash="00ff",
        epsilon=arm.epsilon,
        delta=arm.delta,
        adjacency=arm.adjacency,
        seed=seed,
        profile=arm.profile,
        compute={"private_evaluations": 10},
        samples=10,
    )
    record = RunRecord(replace(asked, **spec), status="complete")  # type: ignore[arg-type]
    record.resolved = {"by_hand": list(arm.values)}
    record.privacy = {"epsilon": arm.epsilon, "release": "valid"}
    record.cost = {"private_evaluations": 9, "public_evaluations": 0}
    record.timings = {"fit": 1.5}
    record.measurements = list(measured)
    return record


def fd(value: float | None, name: str = "fd", **other: object) -> Measurement:
    """Lower is better."""
    reason = "" if value is not None else "no weights"
    found = Measurement(name, value, "", False, 10, "test", "cnn", reason)
    return replace(found, **other)  # type: ignore[arg-type]


def cas(value: float, name: str = "cas") -> Measurement:
    return Measurement(name, value, "%", True, 10, "test", "cnn")


def distances(arm: Arm, mean: float, noise: Sequence[float] = NOISE) -> list[RunRecord]:
    """Runs of seeds 0, 1, ... whose distances lie around a mean."""
    return [run(arm, seed, fd(mean + each)) for seed, each in enumerate(noise)]


def scores(arm: Arm, mean: float, noise: Sequence[float] = NOISE) -> list[RunRecord]:
    return [run(arm, seed, cas(mean + each)) for seed, each in enumerate(noise)]


def claim(rule: Rule, name: str = "c") -> Claim:
    return Claim(name, "statement", "source", "published", rule, "here")


def verdict(rule: Rule, records: Sequence[RunRecord]) -> ClaimVerdict:
    (found,) = judge([claim(rule)], records)
    return found


BETTER = Paired(NEW, OLD, FD)
OFF = (0.0, 0.1, 0.0, -0.1, 0.0)


# --- verdicts


def test_a_difference_in_the_claimed_direction_supports_and_its_twin_contradicts() -> None:
    found = verdict(BETTER, [*distances(NEW, 2.0), *distances(OLD, 3.0, OFF)])
    assert (found.decision, found.reason) == ("supported", "")
    assert found.estimate == pytest.approx(1.0)
    assert found.low is not None and 0 < found.low < 1 < (found.high or 0)
    twin = verdict(BETTER, [*distances(NEW, 3.0), *distances(OLD, 2.0, OFF)])
    assert twin.decision == "contradicted"
    assert twin.estimate == pytest.approx(-1.0)


def test_which_way_is_up_is_the_metrics() -> None:
    rule = Paired(NEW, OLD, CAS)
    assert verdict(rule, [*scores(NEW, 3.0), *scores(OLD, 2.0, OFF)]).decision == "supported"
    assert verdict(rule, [*scores(NEW, 2.0), *scores(OLD, 3.0, OFF)]).decision == "contradicted"


def test_an_interval_that_holds_zero_resolves_nothing() -> None:
    wide = (5.0, -5.0, 4.0, -4.0, 1.0)
    found = verdict(BETTER, [*distances(NEW, 2.0), *distances(OLD, 3.0, wide)])
    assert (found.decision, found.reason) == ("unresolved", "the interval holds 0")
    assert found.estimate is not None and found.p_value is not None


def test_a_claim_without_runs_is_untested_and_says_how_many_are_missing() -> None:
    found = verdict(BETTER, distances(NEW, 2.0, NOISE[:2]))
    assert (found.decision, found.reason) == ("untested", "8 runs are missing")
    assert (found.estimate, found.low, found.p_value) == (None, None, None)


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_seeds_never_decide_however_far_apart(seeds: int) -> None:
    off = (0.001, 0.0)[:seeds]
    found = verdict(BETTER, [*distances(NEW, 2.0, (0.0,) * seeds), *distances(OLD, 900.0, off)])
    assert found.decision == "unresolved" and found.p_value is None
    assert found.reason == f"{seeds} of at least 3 seeds; {10 - 2 * seeds} runs are missing"
    assert found.estimate == pytest.approx(898, abs=0.1)


def test_the_interval_is_students_over_paired_differences() -> None:
    found = verdict(
        BETTER, [*distances(OLD, 100.0, (1, 20, 300)), *distances(NEW, 100.0, (0, 18, 297))]
    )
    # differences 1, 2, 3; the t quantile of 97.5% at two degrees of freedom in closed form
    half = 0.95 * (2 / (1 - 0.95**2)) ** 0.5 / 3**0.5
    assert (found.low, found.high) == (pytest.approx(2 - half), pytest.approx(2 + half))


def test_only_seeds_that_both_arms_have_are_compared() -> None:
    lonely = run(NEW, 4, fd(1000.0))
    records = [*distances(NEW, 2.0, NOISE[:4]), lonely, *distances(OLD, 3.0, OFF[:4])]
    found = verdict(BETTER, records)
    assert list(found.evidence.values) == [0, 1, 2, 3] and found.decision == "supported"
    assert found.evidence.missing == 1


def test_seeds_that_were_not_stated_beforehand_decide_nothing() -> None:
    records = [
        replace_seed(record, record.spec.seed + 5)
        for record in (*distances(NEW, 2.0), *distances(OLD, 3.0, OFF))
    ]
    assert verdict(BETTER, records).decision == "untested"


def replace_seed(record: RunRecord, seed: int) -> RunRecord:
    return replace(record, spec=replace(record.spec, seed=seed))


@pytest.mark.parametrize("spec", [{"profile": "smoke"}, {"dataset": "digits"}, {"epsilon": 2.0}])
def test_smoke_and_digits_and_other_budgets_never_decide(spec: dict[str, object]) -> None:
    records = [
        run(record_arm, seed, fd(mean + NOISE[seed] * seed), **spec)
        for record_arm, mean in ((NEW, 2.0), (OLD, 3.0))
        for seed in range(5)
    ]
    assert verdict(BETTER, records).decision == "untested"


@pytest.mark.parametrize("spec", [{"profile": "smoke"}, {"dataset": "digits"}])
def test_a_claim_cannot_ask_for_smoke_or_digits(spec: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="decides no claim"):
        replace(NEW, **spec)  # type: ignore[arg-type]


def test_runs_that_are_not_complete_never_decide() -> None:
    records = [*distances(NEW, 2.0), *distances(OLD, 3.0, OFF)]
    for record in records:
        record.status = "failed"
    assert verdict(BETTER, records).decision == "untested"


def test_holms_correction_takes_a_verdict_away() -> None:
    wide = (1.2, 0.2, 1.5, 0.3, 1.3)  # p is about 0.02
    records = [*distances(NEW, 2.0, (0.0,) * 5), *distances(OLD, 2.0, wide)]
    alone = verdict(BETTER, records)
    assert alone.decision == "supported"
    together = judge([claim(BETTER, name) for name in "abcd"], records)
    assert alone.p_value is not None and alone.p_value < 0.05 < 4 * alone.p_value
    for found in together:
        assert found.p_value == pytest.approx(4 * alone.p_value)
        assert (found.low, found.high) == (alone.low, alone.high)
        assert found.decision == "unresolved"
        assert "after Holm's correction for 4 tests" in found.reason
    # what could not be tested counts for nothing
    untested = claim(Paired(Arm("x", 1.0), OLD, FD))
    assert judge([claim(BETTER), untested], records)[0].decision == "supported"


# --- trends, margins and thresholds

STEPS = tuple(replace(NEW, settings=(("multiplicity", k),)) for k in (1, 2, 4))


def steps(*means: float) -> list[RunRecord]:
    return [
        record
        for arm, mean, noise in zip(STEPS, means, (NOISE, OFF, NOISE[::-1]), strict=True)
        for record in distances(arm, mean, noise)
    ]


@pytest.mark.parametrize(
    ("means", "decision", "slope"),
    [
        ((9.0, 6.0, 3.0), "supported", 3.0),
        ((3.0, 6.0, 9.0), "contradicted", -3.0),
        # better in all, but not at the last step
        ((9.0, 3.0, 4.0), "unresolved", 2.5),
        ((6.0, 6.0, 6.0), "unresolved", 0.0),
    ],
)
def test_a_trend_must_rise_at_every_step(
    means: tuple[float, ...], decision: str, slope: float
) -> None:
    found = verdict(Trend(STEPS, FD), steps(*means))
    assert (found.decision, found.estimate) == (decision, pytest.approx(slope, abs=0.1))


def test_a_trend_of_gains_is_over_references_place_by_place() -> None:
    bases = tuple(replace(arm, method="old") for arm in STEPS)
    rule = Trend(STEPS, FD, bases)
    of_bases = [
        record
        for arm, mean in zip(bases, (9.0, 7.0, 5.0), strict=True)
        for record in distances(arm, mean, OFF)
    ]
    # gains 0, 1, 2 though the arms themselves get worse
    found = verdict(rule, [*steps(9.0, 6.0, 3.0), *of_bases])
    assert (found.decision, found.estimate) == ("supported", pytest.approx(1.0, abs=0.1))
    assert verdict(rule, [*steps(7.0, 6.0, 5.0), *of_bases]).decision == "contradicted"


@pytest.mark.parametrize(
    ("loss", "decision"), [(1.0, "supported"), (-5.0, "supported"), (3.0, "contradicted")]
)
def test_a_loss_within_the_margin_is_none(loss: float, decision: str) -> None:
    records = [*scores(NEW, 50.0 - loss), *scores(OLD, 50.0, OFF)]
    found = verdict(Paired(NEW, OLD, CAS, margin=2.0), records)
    assert (found.decision, found.evidence.null) == (decision, -2.0)
    assert found.estimate == pytest.approx(-loss)


def test_a_number_of_single_runs_is_held_against_its_threshold() -> None:
    rule = Measured(Reading(NEW, CAS), 50.0)
    assert verdict(rule, scores(NEW, 60.0)).decision == "supported"
    assert verdict(rule, scores(NEW, 40.0)).decision == "contradicted"
    assert verdict(rule, scores(NEW, 50.0)).decision == "unresolved"


def test_a_difference_within_runs_needs_both_numbers() -> None:
    rule = Measured(Reading(NEW, CAS, minus=Metric("single", "cas")), 0.0)
    both = [run(NEW, seed, cas(60.0 + seed), cas(58.0, "single")) for seed in range(3)]
    found = verdict(rule, [*both, run(NEW, 3, cas(99.0))])
    assert list(found.evidence.values.values()) == [2.0, 3.0, 4.0]
    assert (found.evidence.missing, found.evidence.reason) == (1, "single was not measured")


def test_another_profile_is_read_where_it_has_more_seeds_and_is_never_pooled() -> None:
    laptop = replace(NEW, profile="laptop")
    rule = Measured(Reading(NEW, CAS), 50.0, (Reading(laptop, CAS),))
    few = scores(NEW, 40.0, NOISE[:3])
    found = verdict(rule, [*few, *scores(laptop, 60.0, NOISE[:4])])
    assert (found.decision, found.evidence.profile) == ("supported", "laptop")
    assert len(found.evidence.values) == len(found.evidence.records) == 4
    assert found.evidence.missing == 2, "of the runs that test the claim"
    # not by what it says: the same number of seeds, and its own profile decides
    found = verdict(rule, [*few, *scores(laptop, 60.0, NOISE[:3])])
    assert (found.decision, found.evidence.profile) == ("contradicted", "claims")


# --- which records are read


def test_settings_must_be_those_of_the_arm_and_no_others() -> None:
    arm = replace(NEW, settings=(("weights", (1.0,)), ("public", "none")))
    record = run(arm, 0)
    assert arm.assignments == ("weights=(1.0,)", "public=none")
    assert arm.has(record) and not NEW.has(record)
    record.spec.method_args["weights"] = [1.0]  # as JSON has it
    assert arm.has(record)
    record.spec.method_args["weights"] = [0.5, 0.5]
    assert not arm.has(record)
    by_hand = run(NEW, 0)
    by_hand.resolved = {"by_hand": ["steps"]}
    assert not NEW.has(by_hand)


def test_values_of_the_base_may_come_from_a_preset_or_by_hand() -> None:
    arm = replace(NEW, settings=(("weights", 1),), base=(("width", 16), ("weights", 2)))
    assert arm.assignments == ("width=16", "weights=1") and str(arm) == "new epsilon=1 weights=1"
    record = run(arm, 0)
    assert arm.has(record)
    record.resolved = {"by_hand": ["weights"]}
    assert arm.has(record)
    record.spec.method_args["width"] = 32
    assert not arm.has(record)


def test_a_switch_that_came_after_a_record_was_off_in_it() -> None:
    record = run(NEW, 0)
    assert replace(NEW, base=(("late", False),)).has(record)
    assert not replace(NEW, base=(("late", True),)).has(record)


@pytest.mark.parametrize("seed", [0, 1])
def test_an_arm_of_two_versions_resolves_nothing_until_one_is_removed(seed: int) -> None:
    records = [*distances(NEW, 2.0), *distances(OLD, 3.0, OFF)]
    other = run(NEW, seed, fd(2.0), method_version="toy 0.9")
    found = verdict(BETTER, [*records, other])
    assert found.decision == "unresolved" and "remove the outdated ones" in found.reason
    assert found.p_value is None


@pytest.mark.parametrize("other", [{"n": 20}, {"extractor": "another"}])
def test_arms_that_were_measured_differently_are_not_compared(other: dict[str, object]) -> None:
    unlike = [run(OLD, seed, fd(3.0 + OFF[seed], **other)) for seed in range(5)]
    found = verdict(BETTER, [*distances(NEW, 2.0), *unlike])
    assert found.decision == "unresolved" and "the arms differ" in found.reason
    assert found.p_value is None


def test_a_metric_without_a_value_says_why() -> None:
    records = [run(arm, seed, fd(None)) for arm in (NEW, OLD) for seed in range(5)]
    found = verdict(BETTER, records)
    assert (found.decision, found.reason) == (
        "unresolved",
        "0 of at least 3 seeds; no fd: no weights",
    )


# --- the published claims


def test_claims_have_names_of_their_own() -> None:
    names = [each.id for each in CLAIMS]
    assert len(set(names)) == len(names)


ARMS = list(dict.fromkeys(arm for each in CLAIMS for arm in each.rule.arms))


@pytest.fixture
def uncalibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise changes neither what is planned nor what it costs."""
    monkeypatch.setattr(mechanisms, "calibrate", lambda *_: 1.0)


def test_every_run_of_the_claims_can_be_planned_within_its_profile(uncalibrated: None) -> None:
    requests = _missing(CLAIMS, [])
    assert len(requests) == sum(len(arm.seeds) for arm in ARMS)
    assert [request.seed for request in requests] == sorted(request.seed for request in requests)
    ways = set()
    for request in requests[: len(ARMS)]:
        planned = plan(request)  # refuses settings, presets and costs that do not fit
        arguments = sorted(planned.resolved.arguments.items())
        ways.add((request.method, request.epsilon, str(arguments)))
    assert len(ways) == len(ARMS), "two arms are the same runs"


def test_claims_measure_what_they_are_read_from(uncalibrated: None) -> None:
    """A name that no evaluator has would leave a claim untested after all its runs."""
    measured = {
        name: [metric.name for metric in load("evaluator", name).metrics]
        for name in entries("evaluator")
    }
    for each in CLAIMS:
        asked = {name for request in _missing([each], []) for name in request.evaluators or ()}
        for metric in each.rule.metrics:
            assert metric.evaluator in asked
            patterns = measured[metric.evaluator]
            assert any(fnmatch(metric.name, pattern) for pattern in patterns), metric


def test_every_setting_is_a_departure_from_the_preset() -> None:
    for arm in ARMS:
        kind, where = load("method", arm.method), (arm.profile, arm.dataset, arm.epsilon)
        own, bare = (
            resolve(kind, arm.method, *where, assignments).arguments
            for assignments in (arm.assignments, ())
        )
        assert all(own[name] != bare[name] for name in arm.values), arm


def test_fine_tuning_and_scratch_take_the_same_compute(uncalibrated: None) -> None:
    tuned, scratch = (
        plan(_missing([claim(Measured(Reading(arm, CAS), 0.0))], [])[0]).plan
        for arm in (published.FINE_TUNED, published.FROM_SCRATCH)
    )
    total = tuned.evaluations(private=True) + tuned.evaluations(private=False)
    assert scratch.evaluations(private=False) == 0
    assert scratch.evaluations(private=True) == total


def test_arms_that_are_compared_are_of_one_profile_and_data_set() -> None:
    for each in CLAIMS:
        assert len({(arm.profile, arm.dataset) for arm in each.rule.arms}) == 1
    assert {arm.profile for arm in ARMS} == {"claims"} <= PROFILES.keys()
    assert {arm.dataset for arm in ARMS} <= CATALOG.keys()


def test_every_metric_of_the_claims_is_measured_by_some_evaluator() -> None:
    known = [spec.name for name in entries("evaluator") for spec in load("evaluator", name).metrics]

    def measured(name: str) -> bool:
        return any(
            name == each or (each.endswith("*") and name.startswith(each[:-1])) for each in known
        )

    for each in CLAIMS:
        rule = each.rule
        metrics = (
            [
                part
                for reading in (rule.reading, *rule.others)
                for part in (reading.metric, reading.minus)
            ]
            if isinstance(rule, Measured)
            else [rule.metric]  # type: ignore[attr-defined]
        )
        assert all(measured(metric.name) for metric in metrics if metric is not None), each.id


# --- the command


def keep(*records: RunRecord) -> None:
    for record in records:
        file = "runs" / record.spec.folder / "record.json"
        file.parent.mkdir(parents=True)
        file.write_text(record.dumps())


def table() -> dict[str, dict[str, str]]:
    with Path("leaderboards/claims.csv").open(newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def edm_and_v(edm: float, v: float) -> list[RunRecord]:
    """The runs of two of the claims, at epsilon 10."""
    (rule,) = (each.rule for each in CLAIMS if each.id == "edm-at-large-epsilon")
    return [
        run(arm, seed, fd(mean + noise[seed], "fd_cnn"))
        for arm, mean, noise in zip(rule.arms, (edm, v), (NOISE, OFF), strict=True)
        for seed in range(5)
    ]


def test_claims_are_printed_and_written(dpbench: Command) -> None:
    keep(*edm_and_v(edm=2.0, v=3.0))
    ended = dpbench("claims")
    assert ended.code == 0
    found = table()
    assert list(found) == [each.id for each in CLAIMS]
    row = found["edm-at-large-epsilon"]
    assert (row["verdict"], row["seeds"], row["missing"]) == ("supported", "5", "0")
    assert float(row["estimate"]) == pytest.approx(1.0)
    assert len(row["records"].split()) == 10
    assert found["v-at-small-epsilon"]["verdict"] == "untested"
    assert found["v-at-small-epsilon"]["reason"] == "10 runs are missing"
    page = Path("leaderboards/claims.html").read_text()
    assert all(each.id in page for each in CLAIMS)
    assert "collected 10 records" in ended.err


def test_a_twin_with_the_other_sign_is_contradicted(dpbench: Command) -> None:
    keep(*edm_and_v(edm=3.0, v=2.0))
    assert dpbench("claims", "edm-at-large-epsilon").code == 0
    assert table()["edm-at-large-epsilon"]["verdict"] == "contradicted"


def test_json_has_the_claims_that_were_asked_for(dpbench: Command) -> None:
    ended = dpbench("claims", "realism", "ensembles", "--json")  # in any order
    rows = json.loads(ended.out, parse_constant=pytest.fail)
    assert [(row["id"], row["verdict"]) for row in rows] == [
        ("ensembles", "untested"),
        ("realism", "untested"),
    ]
    assert not Path("leaderboards").exists(), "nothing is written of nothing"


def test_files_of_claims_are_stable_and_checked_by_report(dpbench: Command) -> None:
    keep(*edm_and_v(edm=2.0, v=3.0))
    assert dpbench("report").code == 0
    files = [Path("leaderboards", name) for name in ("claims.csv", "claims.html")]
    before = [file.read_bytes() for file in files]
    assert dpbench("claims").code == 0 and dpbench("report").code == 0
    assert [file.read_bytes() for file in files] == before
    assert dpbench("report", "--check").code == 0
    for file, content in zip(files, before, strict=True):
        file.write_bytes(content.replace(b"supported", b"proven"))
        ended = dpbench("report", "--check")
        assert ended.code == 1 and f"{file}: not what the records give" in ended.err
        file.write_bytes(content)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nonsense",), "there is no claim 'nonsense': choose among noise-multiplicity,"),
        (("--dry-run",), "--dry-run prints the plan of --run: give both"),
    ],
)
def test_mistakes_are_one_line(dpbench: Command, arguments: tuple[str, ...], said: str) -> None:
    ended = dpbench("claims", *arguments)
    assert ended.code == 2 and len(ended.err.splitlines()) == 1
    assert said in ended.err


@pytest.fixture
def tried(dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What is run, in this process, for the one claim: that more steps change the toy's mean."""
    monkeypatch.setattr(arms, "DECIDE_NOTHING", {})
    one = Arm("toy", 0.001, (), "smoke", "digits", seeds=(0,))
    rule = Paired(replace(one, settings=(("steps", 2),)), one, Metric("toy_mean", "toy"))
    monkeypatch.setattr(published, "CLAIMS", (claim(rule, "toy-claim"),))
    from dpbench.report import claims as report

    monkeypatch.setattr(report, "CLAIMS", published.CLAIMS)
    asked: list[list[str]] = []

    def in_this_process(arguments: list[str], interrupted: Callable[[], bool]) -> int:
        asked.append(arguments)
        ended: Ended = dpbench(*arguments)
        return ended.code

    monkeypatch.setattr(execute, "run_in_process", in_this_process)
    return asked


def test_a_dry_run_prints_the_plan_alone(dpbench: Command, tried: list[list[str]]) -> None:
    ended = dpbench("claims", "--run", "--dry-run")
    assert ended.code == 0 and not ended.out and not tried
    assert "2 to run, 0 to resume, 0 complete; about" in ended.err
    assert "toy+steps=2" in ended.err
    assert not list(Path.cwd().iterdir())


@pytest.mark.usefixtures("toy")
def test_runs_that_have_a_record_are_not_made_again(
    dpbench: Command, tried: list[list[str]]
) -> None:
    """A clone has the records and no runs; what has lost its record, and that alone, is run."""
    assert dpbench("claims", "--run").code == 0 and len(tried) == 2
    shutil.rmtree("runs")
    ended = dpbench("claims", "--run")
    assert ended.code == 0 and len(tried) == 2
    assert "2 of 2 runs have a record" in ended.err
    one = next(Path("leaderboards/records").rglob("*.json"))
    one.unlink()
    assert dpbench("claims", "--run").code == 0 and len(tried) == 3
    assert one.exists()


def test_a_run_counts_as_made_if_its_record_has_what_the_claim_reads() -> None:
    one = claim(Measured(Reading(NEW, CAS), 0.0))
    records = [run(NEW, 0, cas(1.0)), run(NEW, 1, fd(1.0)), run(OLD, 2, cas(1.0))]
    assert [request.seed for request in _missing([one], records)] == [1, 2, 3, 4]
    # that it cannot be had is an answer too
    unknown = replace(cas(1.0), value=None, reason="no weights")
    assert len(_missing([one], [run(NEW, 0, unknown)])) == 4


def test_what_is_missing_is_run_and_then_judged(
    dpbench: Command, toy: ModuleType, tried: list[list[str]]
) -> None:
    def fails(count: int) -> None:
        if count == 1:
            raise ValueError("tired")

    toy.HOOKS["step"] = fails
    ended = dpbench("claims", "--run")
    assert ended.code == 1 and len(tried) == 2
    assert ended.err.endswith("Error: 1 of 2 runs failed: the same command tries them again\n")
    assert table()["toy-claim"]["missing"] == "1"
    toy.HOOKS.clear()
    assert dpbench("claims", "--run", "toy-claim").code == 0
    assert len(tried) == 3, "what is complete is skipped"
    row = table()["toy-claim"]
    assert (row["missing"], row["seeds"], row["verdict"]) == ("0", "1", "unresolved")
