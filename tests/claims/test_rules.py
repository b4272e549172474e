from __future__ import annotations

from dataclasses import replace

import pytest

from dpbench.claims.rules import Measured, Paired, Reading, Trend
from dpbench.claims.values import Metric
from dpbench.records.run_record import RunRecord
from tests.support.claims import (
    CAS,
    FD,
    NEW,
    NOISE,
    OFF,
    OLD,
    cas,
    distances,
    run,
    scores,
    verdict,
)

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
