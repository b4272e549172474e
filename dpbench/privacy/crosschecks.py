"""Cross-checks of epsilon by two other accountants; no claim rests on them."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import dp_accounting
from dp_accounting import rdp

from dpbench.privacy.budget import Adjacency
from dpbench.privacy.epsilon import epsilon, noiseless
from dpbench.privacy.events import Event, event_to_json

# Largest grid of the PRV accountant; bounds its memory, and its time to a few seconds.
PRV_GRID = 2**20


def epsilon_rdp(
    events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove"
) -> float:
    """Epsilon by Renyi DP (Mironov et al. 2019) in dp-accounting; looser than PLD.

    Raises:
        NotImplementedError: The accountant does not support an event under this adjacency.
    """
    return _rdp(tuple(events), delta, adjacency)


@lru_cache(maxsize=256)
def _rdp(events: tuple[Event, ...], delta: float, adjacency: Adjacency) -> float:
    if noiseless(events):
        return math.inf
    accountant = rdp.RdpAccountant()
    for event in events:
        once = event.equivalent(adjacency)
        if once is None:
            raise NotImplementedError(f"no Renyi DP of {_mechanism_name(event)} under {adjacency}")
        accountant.compose(dp_accounting.SelfComposedDpEvent(once, event.steps))
    return float(accountant.get_epsilon(delta))


def epsilon_prv(
    events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove"
) -> float:
    """Epsilon by privacy random variables (Gopi et al. 2021, arXiv 2106.02848) in Opacus.

    Returns:
        An upper bound, about 1% above the tightest one, and looser for very small epsilon because
        memory and time are bounded.

    Raises:
        NotImplementedError: The accountant does not support an event under this adjacency.
        ValueError, RuntimeError: The accountant fails, for instance on no event at all, a tiny
            delta or tiny noise.
    """
    events = tuple(events)
    if not events:
        raise ValueError("there are no events")
    if noiseless(events):
        return math.inf
    history = []
    for event in events:
        once = event.equivalent(adjacency)
        rate = getattr(once, "sampling_probability", 1.0)
        noise = getattr(once, "event", once)
        if not isinstance(noise, dp_accounting.GaussianDpEvent):
            raise NotImplementedError(f"no PRV of {_mechanism_name(event)} under {adjacency}")
        history.append((noise.noise_multiplier, rate, event.steps))
    near = epsilon(events, delta, adjacency)
    steps = sum(event.steps for event in events)
    # the grid is this many times finer than the error (Gopi et al. 2021, theorem 5.5), and its
    # domain reaches a little beyond the epsilon at a far smaller delta
    points_per_error = math.sqrt(steps * math.log(12e3 / delta) / 2)
    smallest_error = 2 * (3 + 2 * near) * points_per_error / PRV_GRID
    return _prv(tuple(history), delta, max(min(0.01 * near, 0.1), smallest_error))


@lru_cache(maxsize=256)
def _prv(history: tuple[tuple[float, float, int], ...], delta: float, error: float) -> float:
    from opacus.accountants import PRVAccountant  # here because the import takes seconds

    accountant = PRVAccountant()
    accountant.history = list(history)
    return float(accountant.get_epsilon(delta, eps_error=error, delta_error=delta / 1000))


def _mechanism_name(event: Event) -> str:
    return str(event_to_json(event)["mechanism"])


@contextmanager
def _silent() -> Iterator[None]:
    """Suppress the accountants' warnings, for instance about Renyi orders that they skip."""
    logger = logging.getLogger("absl")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


CROSS_CHECKS: dict[str, Callable[..., float]] = {
    f"opacus {version('opacus')} PRV": epsilon_prv,
    f"dp-accounting {version('dp-accounting')} RDP": epsilon_rdp,
}


def cross_checks(
    events: Iterable[Event], delta: float, adjacency: Adjacency
) -> list[dict[str, Any]]:
    """Compute epsilon by each of the other accountants; takes seconds.

    Returns:
        For each accountant its name and version (``accountant``) and either its ``epsilon`` or the
        ``reason`` why it has none.
    """
    events, results = tuple(events), []
    for accountant, compute in CROSS_CHECKS.items():
        result: dict[str, Any] = {"accountant": accountant, "epsilon": None, "reason": ""}
        try:
            with _silent():
                result["epsilon"] = compute(events, delta, adjacency)
        except Exception as error:  # the claim does not rest on them, however they fail
            result["reason"] = str(error) or type(error).__name__
        results.append(result)
    return results
