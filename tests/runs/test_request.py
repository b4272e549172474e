"""Requests that are answered or refused at once, whatever they ask for."""

from __future__ import annotations

import time

import pytest

from dpbench.core.errors import UserError
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.calibration import calibrate
from dpbench.runs.request import RunRequest, plan


@pytest.mark.parametrize(
    ("delta", "message"),
    [
        (0.5, "delta = 0.5 is not between 1e-12 and 0.1: below, epsilon cannot be computed; above"),
        (0.9999, "not between"),
        (1e-13, "not between"),
        (1e-300, "not between"),
    ],
)
def test_a_delta_that_is_no_guarantee_or_beyond_the_accountant_is_refused(
    delta: float, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        plan(RunRequest("class-mean", "digits", 1.0, delta, profile="smoke"))


@pytest.mark.parametrize(("epsilon", "delta"), [(1.0, 1e-12), (1e4, 1e-5), (1.0, 0.1)])
def test_extreme_budgets_are_answered(epsilon: float, delta: float) -> None:
    began = time.process_time()
    planned = plan(RunRequest("dpdm", "digits", epsilon, delta, profile="smoke"))
    assert planned.plan.events[0].noise_multiplier >= 0.1
    assert time.process_time() - began < 30


def test_a_delta_of_no_less_than_one_over_the_images_is_said() -> None:
    for delta, said in ((0.1, True), (1 / 1437, True), (1e-5, False)):
        planned = plan(RunRequest("class-mean", "digits", 1.0, delta, profile="smoke"))
        assert bool(planned.warnings) == said
    assert (
        "not below 1 / 1,437, the number of images"
        in plan(RunRequest("class-mean", "digits", 1.0, 0.1, profile="smoke")).warnings[0]
    )
    assert not plan(RunRequest("real", "digits", delta=0.1, profile="smoke")).warnings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("steps=99999999", "plans at least .* private gradient evaluations; profile smoke allows"),
        ("steps=1000000000000000000", "--set steps takes at most 100,000,000"),
        ("steps=" + "9" * 5000, "takes a whole number, got"),
        ("batch_size=1438", "batch_size = 1438 is more than the 1437 images"),
        ("blocks=99999999", "blocks must be at most 100"),
        ("channels=30000", "dpdm cannot be planned as asked .ValueError: .*divisible"),
        ("channels=32000", "parameters; expected at most 500,000,000"),
        ("channel_mult=" + "1," * 1001, "takes at most 1000 values"),
    ],
)
def test_hyper_parameters_out_of_all_proportion_are_refused(settings: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        plan(RunRequest("dpdm", "digits", 1.0, profile="smoke", settings=tuple(settings.split())))
    assert len(str(error.value)) < 300


def test_a_batch_of_more_images_than_the_set_has_is_refused_in_words() -> None:
    with pytest.raises(UserError, match="a batch cannot have 1.5 times as many images as the set"):
        calibrate(PrivacyBudget(1.0), 1.5, 10)
