from __future__ import annotations

from fnmatch import fnmatch

import pytest

from dpbench.api.profiles import PROFILES
from dpbench.claims import published
from dpbench.claims.published import CLAIMS
from dpbench.claims.rules import Measured, Reading
from dpbench.cli.claims import _missing
from dpbench.core.registry import entries, load
from dpbench.data.catalog import CATALOG
from dpbench.privacy import mechanisms
from dpbench.runs.hyperparameters import resolve
from dpbench.runs.request import plan
from tests.support.claims import (
    CAS,
    claim,
)

ARMS = list(dict.fromkeys(arm for each in CLAIMS for arm in each.rule.arms))


def test_claims_have_names_of_their_own() -> None:
    names = [each.id for each in CLAIMS]
    assert len(set(names)) == len(names)


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
        # readings of other profiles stand in for the claim's own runs
        others = [reading.metric for reading in getattr(each.rule, "others", ())]
        for metric in (*each.rule.metrics, *others):
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
