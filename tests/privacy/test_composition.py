"""What several mechanisms of one run cost together, under either adjacency."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from dpbench.privacy import calibration
from dpbench.privacy.budget import Adjacency, PrivacyBudget
from dpbench.privacy.calibration import calibrate, calibrated
from dpbench.privacy.crosschecks import (
    CROSS_CHECKS,
    PRV_GRID,
    cross_checks,
    epsilon_prv,
    epsilon_rdp,
)
from dpbench.privacy.epsilon import epsilon
from dpbench.privacy.events import DPSGDEvent, Event, GaussianEvent, HistogramEvent, SelectionEvent
from tests.support import broken
from tests.support.checks.accounting import DELTA, GOLDEN, RATE, TARGETS, Epsilon

ADJACENCIES: tuple[Adjacency, ...] = ("add_remove", "replace_one")
FEW = settings(max_examples=6, derandomize=True, database=None, deadline=None)

# Events of every kind, none so expensive or so cheap that a law holds for want of digits.
sigmas = st.floats(0.8, 20)
gaussians = st.builds(GaussianEvent, sigmas, st.floats(0.1, 10), st.just("sum"))
histograms = st.builds(HistogramEvent, sigmas, st.just("sizes"))
selections = st.builds(SelectionEvent, sigmas, st.just("choice"))
trainings = st.builds(
    DPSGDEvent, st.floats(0.01, 0.3), sigmas, st.just(1.0), st.integers(1, 300), st.just("weights")
)
kinds = st.one_of(gaussians, histograms, selections, trainings)
adjacencies = st.sampled_from(ADJACENCIES)


# One mechanism.


def excess_of_gaussian(eps: float, ratio: float) -> float:
    """Delta of a Gaussian release at ``eps``; ``ratio`` is noise over sensitivity."""
    tail = math.exp(eps + float(norm.logcdf(-1 / (2 * ratio) - eps * ratio)))
    return float(norm.cdf(1 / (2 * ratio) - eps * ratio)) - tail


def check_histogram(compute: Epsilon) -> None:
    """The analytic Gaussian mechanism (Balle and Wang 2018, theorem 8) at sensitivity 1, sqrt 2."""
    for sigma, adjacency in itertools.product((0.5, 1.0, 5.0), ADJACENCIES):
        ratio = sigma / math.sqrt(2 if adjacency == "replace_one" else 1)
        exact = float(brentq(lambda eps, r=ratio: excess_of_gaussian(eps, r) - DELTA, 0, 1e3))
        got = compute([HistogramEvent(sigma, "sizes")], DELTA, adjacency)
        assert exact * (1 - 1e-9) <= got <= exact * (1 + 1e-3)


def test_a_histogram_costs_a_gaussian_of_sensitivity_one_or_the_root_of_two() -> None:
    check_histogram(epsilon)


@pytest.mark.parametrize(
    "twin", [broken.accounting.ignores_adjacency, broken.accounting.doubles_for_replacing]
)
def test_the_analytic_mechanism_catches_a_histogram_of(twin: Epsilon) -> None:
    with pytest.raises(AssertionError):
        check_histogram(twin)


def probabilities(scores: Sequence[float], sigma: float) -> np.ndarray:
    """Of each candidate, by the exponential mechanism."""
    weights = np.exp((np.asarray(scores) - max(scores)) / sigma)
    return np.asarray(weights / weights.sum())


def check_selection(compute: Epsilon) -> None:
    """No neighbour changes a candidate's odds by more than is accounted for; some come close."""
    rng = np.random.default_rng(0)
    for sigma, adjacency in itertools.product((0.5, 2.0), ADJACENCIES):
        claimed = compute([SelectionEvent(sigma, "choice")], 1e-12, adjacency)
        worst = 0.0
        low = -1.0 if adjacency == "replace_one" else 0.0
        for _ in range(2000):
            scores = rng.uniform(0, 30, 3)
            # an image more, or another one: the extremes are reached too
            moved = scores + rng.choice([low, 0.0, 1.0, rng.uniform(low, 1)], 3)
            ratio = np.log(probabilities(scores, sigma) / probabilities(moved, sigma))
            worst = max(worst, float(abs(ratio).max()))
        assert 0.95 * claimed < worst <= claimed * (1 + 1e-3)


def test_a_selection_costs_what_a_neighbour_can_change_its_odds_by() -> None:
    check_selection(epsilon)


@pytest.mark.parametrize(
    "twin",
    [
        broken.accounting.ignores_adjacency,
        broken.accounting.half_price,
        broken.accounting.selects_like_gaussian_noise,
    ],
)
def test_asking_for_odds_catches_a_selection_of(twin: Epsilon) -> None:
    with pytest.raises(AssertionError):
        check_selection(twin)


def test_several_selections_compose_like_randomised_responses() -> None:
    """By enumeration: of three choices of epsilon e, j lose e and the others win it."""
    single, count = 0.8, 3
    keep = math.exp(single) / (1 + math.exp(single))

    def delta(eps: float) -> float:
        total = 0.0
        for j in range(count + 1):
            p = math.comb(count, j) * keep ** (count - j) * (1 - keep) ** j
            q = math.comb(count, j) * keep**j * (1 - keep) ** (count - j)
            total += max(0.0, p - math.exp(eps) * q)
        return total

    exact = float(brentq(lambda eps: delta(eps) - 0.01, 0, count * single))
    events = [SelectionEvent(1 / single, f"choice {i}") for i in range(count)]
    assert exact * (1 - 1e-9) <= epsilon(events, 0.01) <= exact * (1 + 2e-3)


def mixture_delta(eps: float, sigma: float, rate: float, theirs: tuple[float, float]) -> float:
    """Delta of one step in which the image's gradient is (1, 0) or is ``theirs``, by summation."""
    x, y = (np.arange(-8, 8, 0.04) * sigma for _ in range(2))
    area = (x[1] - x[0]) * (y[1] - y[0])

    def density(centre: tuple[float, float]) -> np.ndarray:
        parts = (norm.pdf(axis, at, sigma) for axis, at in zip((x, y), centre, strict=True))
        return np.multiply.outer(*parts)

    nobody = (1 - rate) * density((0.0, 0.0))
    ours, other = nobody + rate * density((1.0, 0.0)), nobody + rate * density(theirs)
    return float(np.maximum(ours - math.exp(eps) * other, 0).sum() * area)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_replacing_an_image_in_a_poisson_sample_is_worst_for_opposite_gradients(
    rate: float,
) -> None:
    sigma = 1.0
    eps = epsilon([DPSGDEvent(rate, sigma, 1.0, 1, "weights")], 1e-3, "replace_one")
    opposite = mixture_delta(eps, sigma, rate, (-1.0, 0.0))
    assert opposite == pytest.approx(1e-3, rel=5e-3)
    for angle in (0.0, 0.5, 0.8, 0.95):
        direction = (math.cos(angle * math.pi), math.sin(angle * math.pi))
        assert mixture_delta(eps, sigma, rate, direction) < opposite
    for length in (0.0, 0.5):
        assert mixture_delta(eps, sigma, rate, (-length, 0.0)) < opposite


# Laws.


def check_noise_law(compute: Epsilon, event: Event, adjacency: Adjacency) -> None:
    more = replace(event, noise_multiplier=1.1 * event.noise_multiplier)
    assert compute([more], DELTA, adjacency) < compute([event], DELTA, adjacency)


@given(event=kinds, adjacency=adjacencies)
@FEW
def test_more_noise_costs_less(event: Event, adjacency: Adjacency) -> None:
    check_noise_law(epsilon, event, adjacency)


def check_composition(compute: Epsilon, events: Sequence[Event], adjacency: Adjacency) -> None:
    """More than each, at most the sum at a split delta, and the same in any order."""
    total = compute(events, DELTA, adjacency)
    each = [compute([event], DELTA, adjacency) for event in events]
    split = [compute([event], DELTA / len(events), adjacency) for event in events]
    assert max(each) < total <= sum(split) * (1 + 1e-3)
    assert compute(events[::-1], DELTA, adjacency) == pytest.approx(total, rel=1e-6)
    assert compute(events[:-1], DELTA, adjacency) < total


@given(events=st.lists(kinds, min_size=2, max_size=4), adjacency=adjacencies)
@FEW
def test_events_compose(events: list[Event], adjacency: Adjacency) -> None:
    check_composition(epsilon, events, adjacency)


@pytest.mark.parametrize(
    "twin",
    [
        broken.accounting.dearest_only,
        broken.accounting.adds_up_twice,
        broken.accounting.forgets_the_last,
    ],
)
def test_the_laws_of_composition_catch(twin: Epsilon) -> None:
    events = (HistogramEvent(4.0, "sizes"), GaussianEvent(3.0, 1.0, "sum"))
    check_composition(epsilon, events, "add_remove")
    with pytest.raises(AssertionError):
        check_composition(twin, events, "add_remove")


def check_replacing(compute: Epsilon, event: Event) -> None:
    added = compute([event], DELTA)
    replaced = compute([event], DELTA, "replace_one")
    assert added * (1 + 1e-3) < replaced
    # replacing is removing and adding: group privacy of two (Vadhan 2017, lemma 2.2)
    double = compute([event], DELTA / (1 + math.exp(replaced / 2)))
    assert replaced <= 2 * double * (1 + 2e-3)


@given(event=kinds)
@FEW
def test_replacing_costs_more_than_adding_and_at_most_removing_and_adding(event: Event) -> None:
    check_replacing(epsilon, event)


@pytest.mark.parametrize(
    "twin", [broken.accounting.ignores_adjacency, broken.accounting.triples_for_replacing]
)
def test_the_laws_of_adjacency_catch(twin: Epsilon) -> None:
    with pytest.raises(AssertionError):
        check_replacing(twin, GaussianEvent(3.0, 1.0, "sum"))


@given(sigma=sigmas, adjacency=adjacencies)
@FEW
def test_one_step_on_everybody_is_the_gaussian_mechanism(
    sigma: float, adjacency: Adjacency
) -> None:
    step, release = DPSGDEvent(1.0, sigma, 1.0, 1, "weights"), GaussianEvent(sigma, 1.0, "sum")
    assert epsilon([step], DELTA, adjacency) == pytest.approx(
        epsilon([release], DELTA, adjacency), rel=1e-3
    )


# Splitting a budget.

SIDE: tuple[Event, ...] = (
    HistogramEvent(1.0, "sizes"),
    GaussianEvent(1.0, 1.0, "sum"),
    SelectionEvent(1.0, "choice"),
)


def split(
    budget: PrivacyBudget, rate: float, steps: int, shares: Sequence[float]
) -> tuple[Event, ...]:
    """Side events that would spend a share each by themselves, and training on what is left."""
    side = tuple(
        calibrated(event, replace(budget, epsilon=share * budget.epsilon))
        for event, share in zip(SIDE, shares, strict=True)
    )
    return (*side, calibrated(DPSGDEvent(rate, 1.0, 1.0, steps, "weights"), budget, side))


def check_split(
    compute: Callable[..., tuple[Event, ...]], budget: PrivacyBudget, *how: object
) -> None:
    events = compute(budget, *how)
    assert len(events) == 4
    spent = epsilon(events, budget.delta, budget.adjacency)
    assert 0.999 * budget.epsilon < spent <= budget.epsilon


@given(
    target=st.floats(0.5, 8),
    adjacency=adjacencies,
    rate=st.floats(0.01, 0.2),
    steps=st.integers(20, 2000),
    shares=st.tuples(*[st.floats(0.05, 0.35)] * 3),
)
@settings(FEW, max_examples=2)
def test_a_split_budget_is_spent_and_not_exceeded(
    target: float, adjacency: Adjacency, rate: float, steps: int, shares: tuple[float, ...]
) -> None:
    check_split(split, PrivacyBudget(target, DELTA, adjacency), rate, steps, shares)


def test_spending_a_split_budget_catches_shares_that_are_not_composed() -> None:
    budget, how = PrivacyBudget(1.0), (RATE, 100, (0.1, 0.3, 0.1))
    check_split(split, budget, *how)
    with pytest.raises(AssertionError):
        check_split(broken.accounting.trains_as_if_alone(split), budget, *how)


@pytest.mark.parametrize("adjacency", ADJACENCIES)
@pytest.mark.parametrize("event", SIDE, ids=lambda event: type(event).__name__)
def test_any_event_can_be_calibrated_by_itself(event: Event, adjacency: Adjacency) -> None:
    for target in (0.2, 1.0, 10.0):
        budget = PrivacyBudget(target, DELTA, adjacency)
        noisy = calibrated(event, budget)
        assert replace(noisy, noise_multiplier=event.noise_multiplier) == event
        assert 0.999 * target < epsilon([noisy], DELTA, adjacency) <= target


@pytest.mark.parametrize(("target", "steps"), [(0.2, 15000), (10.0, 732)])
def test_calibration_asks_the_accountant_a_few_times_also_beside_other_events(
    target: float, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How long that takes depends on the machine: ``dpbench bench accounting`` says."""
    side = split(PrivacyBudget(target), RATE, 50, (0.1, 0.3, 0.1))[:-1]
    ask, asked = calibration.epsilon_near, []

    def counted(near: float, *arguments: Any) -> float:
        asked.append(near)
        return ask(near, *arguments)

    monkeypatch.setattr(calibration, "epsilon_near", counted)
    for others in ((), side):
        asked.clear()
        # a delta that nobody else calibrates to, since results are kept
        calibrate(PrivacyBudget(target, 1.000001e-5), RATE, steps, others)
        assert 3 <= len(asked) <= 16


# Cross-checks.


@pytest.mark.parametrize("target, sigma", list(zip(TARGETS, GOLDEN[732], strict=True)))
def test_the_cross_checks_of_a_known_run_bracket_its_epsilon(target: float, sigma: float) -> None:
    prv, rdp = cross_checks([DPSGDEvent(RATE, sigma, 1.0, 732, "weights")], DELTA, "add_remove")
    assert prv["accountant"].startswith("opacus ") and prv["accountant"].endswith(" PRV")
    assert rdp["accountant"].startswith("dp-accounting ") and rdp["accountant"].endswith(" RDP")
    assert prv["reason"] == rdp["reason"] == ""
    assert target < prv["epsilon"] < 1.015 * target
    assert 1.05 * target < rdp["epsilon"] < 1.15 * target


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("adjacency", ADJACENCIES)
def test_accountants_agree_on_a_run_of_several_mechanisms(adjacency: Adjacency) -> None:
    events = [HistogramEvent(8.0, "sizes"), GaussianEvent(6.0, 1.0, "sum")]
    if adjacency == "add_remove":
        events.append(DPSGDEvent(RATE, 5.0, 1.0, 100, "weights"))
    by_pld = epsilon(events, DELTA, adjacency)
    assert by_pld < epsilon_prv(events, DELTA, adjacency) < 1.015 * by_pld
    assert by_pld < epsilon_rdp(events, DELTA, adjacency) < 1.2 * by_pld
    chosen = [*events, SelectionEvent(3.0, "choice")]
    assert epsilon(chosen, DELTA, adjacency) < epsilon_rdp(chosen, DELTA, adjacency)


@pytest.mark.parametrize(
    "events, delta, adjacency, silent",
    [
        ([], DELTA, "add_remove", ("opacus",)),
        ([SelectionEvent(3.0, "choice")], DELTA, "add_remove", ("opacus",)),
        ([DPSGDEvent(0.1, 3.0, 1.0, 9, "w")], DELTA, "replace_one", ("opacus", "dp-accounting")),
        ([GaussianEvent(3.0, 1.0, "sum")], 1e-18, "add_remove", ("opacus",)),
    ],
    ids=["nothing", "a selection", "replace-one", "tiny delta"],
)
def test_an_accountant_that_cannot_say_gives_its_reason(
    events: list[Event], delta: float, adjacency: Adjacency, silent: tuple[str, ...]
) -> None:
    results = cross_checks(events, delta, adjacency)
    assert [each["accountant"] for each in results] == list(CROSS_CHECKS)
    for each in results:
        has_none = each["accountant"].startswith(silent)
        assert (each["epsilon"] is None) == has_none == bool(each["reason"])


@pytest.mark.parametrize(
    ("sigma", "steps", "delta"),
    [(4000.0, 15000, 1.1e-5), (136.4, 15000, 1.1e-5), (6.983, 732, 1e-6)],
)
def test_the_grid_of_the_prv_accountant_is_bounded(
    sigma: float, steps: int, delta: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for tiny epsilon and many steps, at deltas of their own, since results are kept."""
    from opacus.accountants.analysis.prv.domain import Domain

    made, honest = [], Domain.create_aligned

    def counted(*arguments: float) -> Domain:
        made.append(honest(*arguments))
        return made[-1]

    monkeypatch.setattr(Domain, "create_aligned", counted)
    cross_checks([DPSGDEvent(RATE, sigma, 1.0, steps, "weights")], delta, "add_remove")
    # the domain reaches a little further than was planned for
    assert [0 < domain.size < 1.25 * PRV_GRID for domain in made] == [True]
