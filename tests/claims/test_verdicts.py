from __future__ import annotations

import pytest

from dpbench.claims.arms import Arm
from dpbench.claims.rules import Paired
from dpbench.claims.verdicts import judge
from dpbench.stats.student import MeanEstimate
from tests.support.claims import (
    BETTER,
    CAS,
    FD,
    NEW,
    NOISE,
    OFF,
    OLD,
    claim,
    distances,
    fd,
    replace_seed,
    run,
    scores,
    verdict,
)


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


@pytest.mark.parametrize("spec", [{"profile": "smoke"}, {"dataset": "digits"}, {"epsilon": 2.0}])
def test_smoke_and_digits_and_other_budgets_never_decide(spec: dict[str, object]) -> None:
    records = [
        run(record_arm, seed, fd(mean + NOISE[seed] * seed), **spec)
        for record_arm, mean in ((NEW, 2.0), (OLD, 3.0))
        for seed in range(5)
    ]
    assert verdict(BETTER, records).decision == "untested"


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


def test_values_without_variation_are_not_stated_with_certainty() -> None:
    same = (0.0,) * 5
    found = verdict(BETTER, [*distances(NEW, 2.0, same), *distances(OLD, 3.0, same)])
    assert (found.decision, found.p_value) == ("unresolved", 1.0)
    assert (found.estimate, found.low, found.high) == (1.0, None, None)
    assert "all seeds have the same value" in found.reason


def test_a_p_value_of_zero_error_would_state_them_with_certainty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(MeanEstimate, "varies", True)
    monkeypatch.setattr(MeanEstimate, "p_value", lambda self, null: 0.0 if not self.error else 1.0)
    same = (0.0,) * 5
    found = verdict(BETTER, [*distances(NEW, 2.0, same), *distances(OLD, 3.0, same)])
    assert found.decision == "supported"
