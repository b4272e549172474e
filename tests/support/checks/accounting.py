"""The check of an accountant against known noise multipliers."""

from __future__ import annotations

import math
from collections.abc import Callable

from dpbench.privacy.events import DPSGDEvent
from tests.support.checks import expect

Epsilon = Callable[..., float]
DELTA = 1e-5
RATE = 4096 / 60000
# Noise multipliers that give epsilon 0.2, 1 and 10, by number of steps. 134.73 was confirmed by a
# PRV accountant at a tolerance of 0.1%; dp-accounting's default cells give 135.2, which is loose.
TARGETS = (0.2, 1.0, 10.0)
GOLDEN = {
    732: (30.18, 6.983, 1.166),
    2197: (52.23, 11.99, 1.760),
    14648: (134.73, 30.85, 4.197),
}


def dp_sgd(noise_multiplier: float, steps: int = 732, rate: float = RATE) -> DPSGDEvent:
    return DPSGDEvent(rate, noise_multiplier, 1.0, steps, "weights")


def check_golden(compute: Epsilon, steps: int) -> None:
    """The noise multiplier for a given epsilon is the known one, to 0.1% and a rounded digit."""
    for target, noise_multiplier in zip(TARGETS, GOLDEN[steps], strict=True):
        digits = 3 - math.floor(math.log10(noise_multiplier))
        slack = 1e-3 * noise_multiplier + 0.5 * 10**-digits
        below = compute([dp_sgd(noise_multiplier + slack, steps)], DELTA)
        above = compute([dp_sgd(noise_multiplier - slack, steps)], DELTA)
        expect(below < target < above, f"{noise_multiplier} is the noise for epsilon {target}")
