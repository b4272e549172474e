"""Time noise calibration by our accountant and by Opacus', and compare how tight they are."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from opacus.accountants.utils import get_noise_multiplier

from dpbench.bench.timing import Spread, side_by_side
from dpbench.core.errors import UserError
from dpbench.core.progress import Progress
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.calibration import calibrate, smallest_noise_multiplier
from dpbench.privacy.epsilon import ACCOUNTANT, epsilon
from dpbench.privacy.events import DPSGDEvent

EPSILONS = (0.2, 1.0, 10.0)
STEPS = (732, 2197, 14648)  # 50, 150 and 1000 epochs of 60000 images in batches of 4096
SAMPLE_RATE = 4096 / 60000
OPACUS_ACCOUNTANTS = ("prv", "rdp")


@dataclass(frozen=True)
class CalibrationTiming:
    """One calibration.

    Attributes:
        epsilon: Epsilon of the privacy budget.
        sample_rate: Poisson sampling probability q.
        steps: Number of steps T.
        delta: Delta of the privacy budget.
        accountant: Library, version and method of the accountant.
        noise_multiplier: The sigma that was found.
        accounted_epsilon: Epsilon of that sigma by our accountant: the closer to ``epsilon`` from
            below, the tighter.
        seconds: Median time of a calibration over the repeats.
        seconds_low: Shortest time.
        seconds_high: Longest time.
        reason: Why the calibration failed; ``""`` if it did not.
    """

    epsilon: float
    sample_rate: float
    steps: int
    delta: float
    accountant: str
    noise_multiplier: float | None = None
    accounted_epsilon: float | None = None
    seconds: float | None = None
    seconds_low: float | None = None
    seconds_high: float | None = None
    reason: str = ""


def bench_accounting(
    epsilons: Sequence[float], steps: Sequence[int], repeats: int, progress: Progress
) -> list[CalibrationTiming]:
    """Calibrate for every epsilon and number of steps, with every accountant.

    Args:
        epsilons: Epsilons to calibrate for; ``EPSILONS`` if empty.
        steps: Numbers of steps T; ``STEPS`` if empty.
        repeats: Timed calibrations, after one warm-up.
        progress: Receives progress updates.

    Raises:
        UserError: An epsilon is not positive and finite.
    """
    budgets = [PrivacyBudget(each) for each in epsilons or EPSILONS]
    if not all(budget.private for budget in budgets):
        raise UserError("epsilon must be finite: without a budget there is nothing to calibrate")
    cases = list(itertools.product(steps or STEPS, budgets))
    rows = []
    total = len(cases) * (1 + len(OPACUS_ACCOUNTANTS)) * (repeats + 1)
    with progress.task("calibrating", total, "calibrations") as task:
        for count, budget in cases:
            for name, timed in side_by_side(_calibrations(budget, count), repeats, task).items():
                case = (budget.epsilon, SAMPLE_RATE, count, budget.delta, name)
                if timed.reason:
                    rows.append(CalibrationTiming(*case, reason=timed.reason))
                    continue
                event = DPSGDEvent(SAMPLE_RATE, timed.result, 1.0, count, name)
                spread = Spread.of(timed.seconds)
                rows.append(
                    CalibrationTiming(
                        *case,
                        noise_multiplier=timed.result,
                        accounted_epsilon=epsilon([event], budget.delta),
                        seconds=spread.median,
                        seconds_low=spread.low,
                        seconds_high=spread.high,
                    )
                )
    return rows


def _calibrations(budget: PrivacyBudget, steps: int) -> dict[str, Callable[[], float]]:
    """Functions that find a noise multiplier, by the name of the accountant."""
    found: dict[str, Callable[[], float]] = {ACCOUNTANT: functools.partial(_by_ours, budget, steps)}
    for name in OPACUS_ACCOUNTANTS:
        label = f"opacus {version('opacus')} {name.upper()}"
        found[label] = functools.partial(_by_opacus, name, budget, steps)
    return found


def _by_ours(budget: PrivacyBudget, steps: int) -> float:
    """Calibrate without the cache."""
    smallest_noise_multiplier.cache_clear()
    return calibrate(budget, SAMPLE_RATE, steps)


def _by_opacus(accountant: str, budget: PrivacyBudget, steps: int) -> float:
    """Opacus' own search, at its default tolerance of 0.01 in epsilon."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # Opacus warns that the best Renyi order is the largest it tried
        sigma = get_noise_multiplier(
            target_epsilon=budget.epsilon,
            target_delta=budget.delta,
            sample_rate=SAMPLE_RATE,
            steps=steps,
            accountant=accountant,
        )
    return float(sigma)
