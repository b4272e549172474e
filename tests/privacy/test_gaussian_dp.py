"""The Gaussian-DP bound: exact where that is possible, and never below the curve of the PLD."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dpbench.privacy.audit.bounds import gaussian_dp_epsilon
from dpbench.privacy.budget import Adjacency
from dpbench.privacy.epsilon import composition, epsilon
from dpbench.privacy.events import (
    DPSGDEvent,
    Event,
    GaussianEvent,
    HistogramEvent,
    SelectionEvent,
)
from dpbench.privacy.gaussian_dp import EXACT, UPPER_BOUND, GaussianDP, delta_of, gaussian_dp
from tests.support import broken
from tests.support.checks import Detected

DELTA = 1e-5
LAPTOP = DPSGDEvent(1024 / 60_000, 1.0823, 0.5, 100, "weights")
Bound = Callable[[tuple[Event, ...], Adjacency, float], GaussianDP]


@pytest.mark.parametrize(
    ("events", "adjacency", "mu"),
    [
        ((GaussianEvent(4.0, 0.5, "sum"),), "add_remove", 1 / 4),
        ((GaussianEvent(4.0, 0.5, "sum"),), "replace_one", 2 / 4),
        ((HistogramEvent(5.0, "sizes"),), "replace_one", math.sqrt(2) / 5),
        ((DPSGDEvent(1.0, 3.0, 1.0, 9, "weights"),), "add_remove", 1.0),
        ((DPSGDEvent(1.0, 3.0, 1.0, 9, "weights"),), "replace_one", 2.0),
        ((HistogramEvent(3.0, "sizes"), GaussianEvent(4.0, 1.0, "sum")), "add_remove", 5 / 12),
        ((), "add_remove", 0.0),
    ],
)
def test_gaussian_releases_compose_exactly(
    events: tuple[Event, ...], adjacency: Adjacency, mu: float
) -> None:
    claimed = epsilon(events, DELTA, adjacency)
    assert gaussian_dp(events, adjacency, claimed) == GaussianDP(
        pytest.approx(mu, rel=1e-12), math.inf, EXACT
    )
    if events:  # the PLD is pessimistic by at most 0.1%
        assert gaussian_dp_epsilon(mu, DELTA) == pytest.approx(claimed, rel=1e-3)


@functools.cache
def curve(events: tuple[Event, ...], adjacency: Adjacency) -> tuple[Any, float]:
    """The PLD of the claim, and the epsilon that is claimed."""
    claimed = epsilon(events, DELTA, adjacency)
    return composition(claimed, events, adjacency), claimed


def check_dominates(bound: Bound, events: tuple[Event, ...], adjacency: Adjacency) -> None:
    """Delta of the bound is never below the PLD's, between the points of its own grid too."""
    loss, claimed = curve(events, adjacency)
    found = bound(events, adjacency, claimed)
    assert (found.up_to_epsilon, found.direction) == (claimed, UPPER_BOUND)
    inside = np.random.default_rng(0).uniform(0, claimed, 500)
    epsilons = np.sort([*inside, 0.0, claimed])
    short = delta_of(found.mu, epsilons) < np.asarray(loss.get_delta_for_epsilon(epsilons))
    if short.any():
        raise Detected(f"mu = {found.mu} is too small at epsilon = {epsilons[short][-1]}")


def check_tight(bound: Bound, events: tuple[Event, ...], adjacency: Adjacency) -> None:
    """A mu smaller by 0.5% would not do."""
    with pytest.raises(Detected):
        check_dominates(scaled(bound, 0.995), events, adjacency)


def scaled(bound: Bound, factor: float) -> Bound:
    def altered(events: tuple[Event, ...], adjacency: Adjacency, up_to: float) -> GaussianDP:
        found = bound(events, adjacency, up_to)
        return GaussianDP(factor * found.mu, found.up_to_epsilon, found.direction)

    return altered


SAMPLED: list[tuple[tuple[Event, ...], Adjacency]] = [
    ((LAPTOP,), "add_remove"),
    ((LAPTOP,), "replace_one"),
    ((DPSGDEvent(4096 / 60_000, 1.166, 1.0, 732, "weights"),), "add_remove"),
    ((DPSGDEvent(0.3, 5.0, 1.0, 20, "weights"), GaussianEvent(8.0, 1.0, "sum")), "add_remove"),
    ((DPSGDEvent(0.01, 40.0, 1.0, 5, "weights"),), "add_remove"),
    ((SelectionEvent(3.0, "choice"), GaussianEvent(4.0, 1.0, "sum")), "add_remove"),
]


@pytest.mark.parametrize(("events", "adjacency"), SAMPLED)
def test_the_bound_dominates_the_pld(events: tuple[Event, ...], adjacency: Adjacency) -> None:
    check_dominates(gaussian_dp, events, adjacency)


def test_a_smaller_mu_would_not_do() -> None:
    for events, adjacency in SAMPLED[:4]:
        check_tight(gaussian_dp, events, adjacency)
    with pytest.raises(pytest.fail.Exception):
        check_tight(scaled(gaussian_dp, 1.01), *SAMPLED[0])


@pytest.mark.parametrize(
    "twin",
    [scaled(gaussian_dp, 0.99), broken.accounting.mu_by_the_limit_theorem],
    ids=["1% too small", "central limit theorem"],
)
def test_the_pld_catches_a_mu_that_is_too_small(twin: Bound) -> None:
    for events, adjacency in SAMPLED[:3]:
        with pytest.raises(Detected, match="is too small"):
            check_dominates(twin, events, adjacency)


def test_nothing_is_said_beyond_the_range_because_it_would_be_false() -> None:
    loss, claimed = curve((LAPTOP,), "add_remove")
    found = gaussian_dp((LAPTOP,), "add_remove", claimed)
    beyond = 2 * claimed
    assert delta_of(found.mu, beyond) < loss.get_delta_for_epsilon(beyond)
