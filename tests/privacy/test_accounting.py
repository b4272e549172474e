from __future__ import annotations

import functools
import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import PRVAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from dpbench.core.errors import UserError
from dpbench.privacy.budget import Adjacency, PrivacyBudget
from dpbench.privacy.calibration import calibrate
from dpbench.privacy.crosschecks import epsilon_rdp
from dpbench.privacy.epsilon import epsilon
from dpbench.privacy.events import (
    DPSGDEvent,
    Event,
    GaussianEvent,
    HistogramEvent,
    SelectionEvent,
    event_from_json,
    event_to_json,
)
from tests.support import broken
from tests.support.checks import Detected
from tests.support.checks.accounting import (
    DELTA,
    GOLDEN,
    RATE,
    TARGETS,
    Epsilon,
    check_golden,
    dp_sgd,
)

GOLDEN_RDP = (33.44, 7.578, 1.225)
GOLDEN_REPLACE_ONE = (0.42, 2.12, 18.1)
ADJACENCIES: tuple[Adjacency, ...] = ("add_remove", "replace_one")


# Golden values.


@pytest.mark.parametrize("steps", GOLDEN)
def test_epsilon_agrees_with_known_noise_multipliers(steps: int) -> None:
    check_golden(epsilon, steps)


@pytest.mark.parametrize(
    "twin",
    [
        broken.accounting.gaussian_dp,
        broken.accounting.forgets_steps,
        broken.accounting.forgets_the_sampling,
        broken.accounting.takes_the_rate_of_a_loader,
        lambda events, delta: epsilon_rdp(events, delta),
    ],
    ids=["gaussian dp", "one step", "no sampling", "rate of a loader", "renyi dp"],
)
def test_known_noise_multipliers_catch(twin: Epsilon) -> None:
    with pytest.raises(Detected):
        check_golden(twin, 732)


def check_replace_one(compute: Epsilon) -> None:
    for noise_multiplier, expected in zip(GOLDEN[732], GOLDEN_REPLACE_ONE, strict=True):
        got = compute([dp_sgd(noise_multiplier)], DELTA, "replace_one")
        assert got == pytest.approx(expected, rel=0.012)


def test_replacing_one_costs_what_it_is_known_to_cost() -> None:
    check_replace_one(epsilon)


def test_known_costs_of_replacing_catch_an_accountant_that_ignores_adjacency() -> None:
    with pytest.raises(AssertionError):
        check_replace_one(broken.accounting.ignores_adjacency)


# Other accountants.


@functools.cache
def prv_epsilon(noise_multiplier: float, tolerance: float) -> float:
    """Gopi et al. 2021, as Opacus implements it."""
    prv = PRVAccountant()
    prv.history = [(noise_multiplier, RATE, 732)]
    # it adds its tolerance to its estimate
    return float(prv.get_epsilon(DELTA, eps_error=tolerance, delta_error=1e-9)) - tolerance


def check_against_prv(compute: Epsilon) -> None:
    for target, noise_multiplier in zip(TARGETS, GOLDEN[732], strict=True):
        expected = prv_epsilon(noise_multiplier, 2e-3 * target)  # far below its default tolerance
        assert compute([dp_sgd(noise_multiplier)], DELTA) == pytest.approx(expected, rel=5e-3)


@pytest.mark.filterwarnings("ignore")
def test_epsilon_agrees_with_the_prv_accountant() -> None:
    check_against_prv(epsilon)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "twin", [broken.accounting.gaussian_dp, broken.accounting.takes_the_rate_of_a_loader]
)
def test_the_prv_accountant_catches(twin: Epsilon) -> None:
    with pytest.raises(AssertionError):
        check_against_prv(twin)


def check_rdp(looser: Epsilon) -> None:
    for target, tight, loose in zip(TARGETS, GOLDEN[732], GOLDEN_RDP, strict=True):
        assert looser([dp_sgd(tight)], DELTA) > epsilon([dp_sgd(tight)], DELTA)
        assert looser([dp_sgd(loose)], DELTA) == pytest.approx(target, rel=5e-3)


def test_renyi_dp_is_looser_by_a_known_amount() -> None:
    check_rdp(epsilon_rdp)


@pytest.mark.parametrize(
    "twin", [broken.accounting.rdp_of_half_the_rate, broken.accounting.gaussian_dp]
)
def test_the_cross_check_catches(twin: Epsilon) -> None:
    with pytest.raises(AssertionError):
        check_rdp(twin)


def analytic_gaussian(noise_multiplier: float, delta: float) -> float:
    """Epsilon of one Gaussian release, exactly (Balle and Wang 2018, theorem 8)."""

    def excess(eps: float) -> float:
        s = noise_multiplier
        tail = math.exp(eps + float(norm.logcdf(-1 / (2 * s) - eps * s)))
        return float(norm.cdf(1 / (2 * s) - eps * s)) - tail - delta

    return float(brentq(excess, 0, 1e4, xtol=1e-12))


def check_one_gaussian(compute: Epsilon) -> None:
    for noise_multiplier in (0.3, 1.0, 4.0, 30.0):
        for delta in (1e-5, 1e-9):
            exact = analytic_gaussian(noise_multiplier, delta)
            got = compute([GaussianEvent(noise_multiplier, 1.0, "sum")], delta)
            assert exact * (1 - 1e-9) <= got <= exact * (1 + 1e-3)
            # one image for another moves a sum by twice the clipping norm
            replaced = compute(
                [GaussianEvent(2 * noise_multiplier, 1.0, "sum")], delta, "replace_one"
            )
            assert replaced == pytest.approx(exact, rel=1e-3)


def test_one_gaussian_release_costs_what_the_analytic_mechanism_says() -> None:
    check_one_gaussian(epsilon)


@pytest.mark.parametrize(
    "twin", [broken.accounting.classical_gaussian, broken.accounting.ignores_adjacency]
)
def test_the_analytic_mechanism_catches(twin: Epsilon) -> None:
    with pytest.raises(AssertionError):
        check_one_gaussian(twin)


# Laws.


def check_monotone(compute: Epsilon, event: DPSGDEvent, adjacency: Adjacency) -> None:
    rate, sigma, steps = event.sample_rate, event.noise_multiplier, event.steps

    def cost(rate: float, sigma: float, steps: int) -> float:
        value = compute([DPSGDEvent(rate, sigma, 1.0, steps, "weights")], DELTA, adjacency)
        assert math.isfinite(value)
        return value

    here = cost(rate, sigma, steps)
    assert cost(rate, 1.1 * sigma, steps) < here
    assert cost(0.9 * rate, sigma, steps) < here
    assert cost(rate, sigma, steps + steps // 5 + 1) > here


@given(
    rate=st.floats(0.01, 0.3),
    sigma=st.floats(0.8, 20),
    steps=st.integers(10, 1000),
    adjacency=st.sampled_from(ADJACENCIES),
)
@settings(max_examples=6, derandomize=True, database=None, deadline=None)
def test_epsilon_falls_with_noise_and_grows_with_rate_and_steps(
    rate: float, sigma: float, steps: int, adjacency: Adjacency
) -> None:
    check_monotone(epsilon, DPSGDEvent(rate, sigma, 1.0, steps, "weights"), adjacency)


@pytest.mark.parametrize(
    "twin", [broken.accounting.forgets_steps, broken.accounting.forgets_the_sampling]
)
def test_monotonicity_catches(twin: Epsilon) -> None:
    with pytest.raises(AssertionError):
        check_monotone(twin, dp_sgd(2.0, 100), "add_remove")


def test_steps_compose_and_the_order_of_events_does_not_matter() -> None:
    half, whole = dp_sgd(2.0, 50), dp_sgd(2.0, 100)
    assert epsilon([half, half], DELTA) == pytest.approx(epsilon([whole], DELTA), rel=1e-3)
    other = GaussianEvent(3.0, 1.0, "sum")
    both = epsilon([half, other], DELTA)
    assert both == pytest.approx(epsilon([other, half], DELTA), rel=1e-6)
    assert both > max(epsilon([half], DELTA), epsilon([other], DELTA))


def test_four_gaussian_releases_are_one_of_half_the_noise() -> None:
    four = epsilon([GaussianEvent(4.0, 1.0, f"sum {i}") for i in range(4)], DELTA)
    assert four == pytest.approx(analytic_gaussian(2.0, DELTA), rel=1e-3)


def test_sampling_everybody_is_not_sampling() -> None:
    sampled = epsilon([dp_sgd(3.0, 1, 1.0)], DELTA)
    assert sampled == pytest.approx(analytic_gaussian(3.0, DELTA), rel=1e-3)


def test_no_event_costs_nothing_and_no_noise_costs_everything() -> None:
    assert epsilon([], DELTA) == 0
    assert epsilon([GaussianEvent(0.0, 1.0, "sum")], DELTA) == math.inf
    assert epsilon([dp_sgd(0.0)], DELTA) == math.inf


HONEST = {
    DPSGDEvent: {"sample_rate": 0.1, "noise_multiplier": 1.0, "clipping_norm": 1.0, "steps": 2},
    GaussianEvent: {"noise_multiplier": 1.0, "clipping_norm": 1.0},
    HistogramEvent: {"noise_multiplier": 1.0},
    SelectionEvent: {"noise_multiplier": 1.0},
}
WRONG = {
    "sample_rate": (0.0, -0.1, 1.01, math.nan),
    "noise_multiplier": (-1.0, math.inf, math.nan),
    "clipping_norm": (0.0, -1.0, math.inf, math.nan),
    "steps": (0, -1),
}


@pytest.mark.parametrize("kind", HONEST, ids=lambda kind: kind.__name__)
def test_an_event_that_cannot_be_is_refused(kind: type[Event]) -> None:
    honest = HONEST[kind]
    kind(**honest, purpose="anything")
    for name, values in WRONG.items():
        for value in values if name in honest else ():
            with pytest.raises(ValueError, match=name):
                kind(**{**honest, name: value}, purpose="anything")


@pytest.mark.parametrize(
    "event",
    [
        dp_sgd(1 / 3),
        GaussianEvent(2 / 3, 0.1, "sum"),
        HistogramEvent(1 / 7, "sizes"),
        SelectionEvent(1 / 9, "choice"),
    ],
)
def test_an_event_survives_being_written_down(event: Event) -> None:
    assert event_from_json(event_to_json(event)) == event


# Calibration.

Calibrate = Callable[..., float]


def check_calibration(
    compute: Calibrate,
    budget: PrivacyBudget,
    rate: float,
    steps: int,
    others: tuple[Event, ...] = (),
) -> None:
    noise_multiplier = compute(budget, rate, steps, others)
    spent = epsilon(
        [*others, dp_sgd(noise_multiplier, steps, rate)], budget.delta, budget.adjacency
    )
    assert 0.999 * budget.epsilon <= spent <= budget.epsilon


CALIBRATIONS: tuple[tuple[PrivacyBudget, float, int, tuple[Event, ...]], ...] = (
    (PrivacyBudget(0.01), RATE, 200, ()),
    (PrivacyBudget(1.0), RATE, 732, ()),
    (PrivacyBudget(10.0), RATE, 732, ()),
    (PrivacyBudget(1.0, 1e-10), RATE, 732, ()),
    (PrivacyBudget(1.0, 1e-5, "replace_one"), RATE, 732, ()),
    (PrivacyBudget(1.0), RATE, 732, (GaussianEvent(6.0, 1.0, "sum"),)),
    (PrivacyBudget(1.0), 1.0, 1, ()),
)


@pytest.mark.parametrize("budget, rate, steps, others", CALIBRATIONS, ids=str)
def test_calibration_spends_the_budget_and_no_more(
    budget: PrivacyBudget, rate: float, steps: int, others: tuple[Event, ...]
) -> None:
    check_calibration(calibrate, budget, rate, steps, others)


@pytest.mark.parametrize(
    "twin", [broken.accounting.calibrates_too_low, broken.accounting.calibrates_without_the_others]
)
def test_asking_the_accountant_again_catches_a_calibration(twin: Calibrate) -> None:
    with pytest.raises(AssertionError):
        check_calibration(twin, *CALIBRATIONS[5])


@pytest.mark.parametrize("target", [0.2, 1.0, 10.0])
@pytest.mark.parametrize("adjacency", ADJACENCIES)
def test_calibrating_one_release_gives_the_analytic_gaussian_mechanism(
    target: float, adjacency: Adjacency
) -> None:
    budget = PrivacyBudget(target, DELTA, adjacency)
    noise_multiplier = calibrate(budget, 1.0, 1)
    sensitivity = 2 if adjacency == "replace_one" else 1
    exact = analytic_gaussian(noise_multiplier / sensitivity, DELTA)
    assert 0.999 * target <= exact <= target
    # the event of a one-shot sum costs what the step that it was calibrated as costs
    assert epsilon([GaussianEvent(noise_multiplier, 1.0, "sum")], DELTA, adjacency) <= target


def test_without_a_limit_there_is_no_noise() -> None:
    assert calibrate(PrivacyBudget(math.inf), RATE, 732) == 0


def test_a_budget_that_is_spent_already_is_the_users_mistake() -> None:
    with pytest.raises(UserError):
        calibrate(PrivacyBudget(1.0), 0.1, 2, (GaussianEvent(1.0, 1.0, "sum"),))


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_a_budget_of_nothing_is_the_users_mistake(value: float) -> None:
    with pytest.raises(UserError):
        PrivacyBudget(value)


@pytest.mark.parametrize("value", [0.0, 1.0, -1e-5, math.nan])
def test_delta_lies_between_zero_and_one(value: float) -> None:
    with pytest.raises(UserError):
        PrivacyBudget(1.0, value)
