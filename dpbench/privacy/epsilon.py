"""The epsilon of a composition of events.

Every epsilon of the project is computed here, by the privacy loss distributions (PLD) of Google's
dp-accounting (Doroshenko et al. 2022, arXiv 2207.04380), which are pessimistic: the true epsilon is
never above the stated one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from importlib.metadata import version

from dp_accounting import pld

from dpbench.privacy.budget import Adjacency
from dpbench.privacy.events import Event, SelectionEvent

ACCOUNTANT = f"dp-accounting {version('dp-accounting')} PLD"
MIN_NOISE_MULTIPLIER = 0.1


def epsilon(events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove") -> float:
    """Epsilon of the composition of ``events``, by PLD: a function of its arguments alone.

    Args:
        events: In any order (the composition is adaptive).
        delta: In (0, 1).
        adjacency: Which data sets are neighbours.

    Returns:
        An upper bound, within about 0.1% of the tightest that PLD gives; ``inf`` for noise
        multipliers below 0.1.

    Example:
        >>> from dpbench.privacy.events import DPSGDEvent
        >>> event = DPSGDEvent(4096 / 60000, 6.983, 1.0, 732, "weights")
        >>> round(epsilon([event], 1e-5), 2)
        1.0
    """
    events = tuple(events)
    if noiseless(events):
        return math.inf  # not worth the accountant's hour
    before, result = math.inf, 10.0
    while result < 0.9 * before:  # the cells were chosen for an epsilon well above the true one
        before = result
        result = epsilon_near(before, events, delta, adjacency)
    return result


def noiseless(events: Iterable[Event]) -> bool:
    """Whether an event has so little noise that no accountant is asked about it."""
    return any(event.noise_multiplier < MIN_NOISE_MULTIPLIER for event in events)


def epsilon_near(
    target: float, events: Iterable[Event], delta: float, adjacency: Adjacency
) -> float:
    """PLD epsilon, counted in cells that suit an epsilon near ``target``.

    Coarser cells are faster and more pessimistic, never optimistic.
    """
    events = tuple(events)
    width = _width_for(target, events, adjacency)
    total = pld.privacy_loss_distribution.identity(value_discretization_interval=width)
    for event in events:
        total = total.compose(event.loss(adjacency, width))
    return float(total.get_epsilon_for_delta(delta))


def _width_for(target: float, events: tuple[Event, ...], adjacency: Adjacency) -> float:
    """The PLD cell width at which an epsilon near ``target`` is right to about 0.01%.

    Counting T losses in cells of width h makes epsilon too large by about ``h^2 T / epsilon``
    (measured for T from 1 to 15000), so h follows from the error that is allowed. The loss of a
    selection has two values, which are rounded up to whole cells: that is an error of h, unless
    they are whole numbers of cells already.
    """
    releases = sum(event.steps for event in events)
    width = min(max(target * math.sqrt(1e-4 / max(releases, 1)), 1e-6), 0.1)
    selections = [e.pure_epsilon(adjacency) for e in events if isinstance(e, SelectionEvent)]
    if len(set(selections)) == 1:  # cut into a power of two, which is exact in floating point
        width = selections[0] / 2 ** max(0, math.ceil(math.log2(selections[0] / width)))
    elif selections:
        width = min(width, 3e-4 * target / len(selections))
    return max(width, 1e-6)
