from __future__ import annotations

from dataclasses import replace

import pytest

from dpbench.claims.arms import Arm
from dpbench.records.run_record import RunRecord
from tests.support.claims import (
    BETTER,
    NEW,
    NOISE,
    OFF,
    OLD,
    distances,
    fd,
    run,
    verdict,
)


@pytest.mark.parametrize("spec", [{"profile": "smoke"}, {"dataset": "digits"}])
def test_a_claim_cannot_ask_for_smoke_or_digits(spec: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="decides no claim"):
        replace(NEW, **spec)  # type: ignore[arg-type]


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


def with_public_weights(arm: Arm, mean: float, *, shared: bool) -> list[RunRecord]:
    records = distances(arm, mean)
    for record in records:
        weights = {"recipe": "ab", "sha256": "cd", "reused": False}
        record.resolved["pretrained"] = weights if shared else weights | {"seed": record.spec.seed}
    return records


def test_runs_that_share_public_weights_decide_nothing() -> None:
    old = distances(OLD, 3.0, OFF)
    found = verdict(BETTER, [*with_public_weights(NEW, 2.0, shared=False), *old])
    assert found.decision == "supported"
    found = verdict(BETTER, [*with_public_weights(NEW, 2.0, shared=True), *old])
    assert found.decision == "unresolved" and found.p_value is None
    assert "share one draw of public weights" in found.reason


def test_later_records_stand_for_an_arm_and_earlier_ones_step_back() -> None:
    old = distances(OLD, 3.0, OFF)
    earlier = with_public_weights(NEW, 4.0, shared=True)
    for record in earlier:
        record.spec = replace(record.spec, schema_version=1)
    found = verdict(BETTER, [*earlier, *with_public_weights(NEW, 2.0, shared=False), *old])
    assert found.decision == "supported"


def test_a_method_is_not_compared_with_another_version_of_itself() -> None:
    arm = replace(NEW, settings=(("weights", 1),))
    later = [
        run(arm, seed, fd(2.0 + each), method_version="dpbench 2")
        for seed, each in enumerate(NOISE)
    ]
    found = verdict(replace(BETTER, arm=arm, reference=NEW), [*later, *distances(NEW, 3.0, OFF)])
    assert found.decision == "unresolved" and "the arms differ" in found.reason
    # versions of two methods are counted apart
    found = verdict(replace(BETTER, arm=arm), [*later, *distances(OLD, 3.0, OFF)])
    assert found.decision == "supported"


def test_another_version_of_the_evaluator_is_another_measurement() -> None:
    later = [run(NEW, seed, fd(2.0 + each, version="fd 2")) for seed, each in enumerate(NOISE)]
    found = verdict(BETTER, [*later, *distances(OLD, 3.0, OFF)])
    assert found.decision == "unresolved" and "the arms differ" in found.reason
