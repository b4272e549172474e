"""The decision of an audit: statistical checks, each of which may refute the claim."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, chi2, norm

from dpbench.privacy.audit.bounds import gaussian_dp_epsilon, one_run_epsilon
from dpbench.privacy.audit.transcript import CANARIES, Audited, OwnNoise, OwnReleases, Transcript
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.events import DPSGDEvent
from dpbench.stats.exact_intervals import proportion_interval, scale_interval

# Only the surest guesses are made; more of them would mostly be coin flips.
GUESSES = 500
# Largest deviation of a contribution from 0 or C, over C; far above rounding.
TOLERANCE = 0.01
# Standard deviations beyond which noise counts as its tail.
TAIL = 2.0


@dataclass(frozen=True)
class Check:
    """A quantity whose value follows from the claim, and the interval that was observed for it.

    Attributes:
        name: Name of the quantity.
        of: Where it was observed: an event's purpose or a tensor.
        claimed: Its value if the claim is true.
        low: Lower end of the observed interval.
        high: Upper end of the observed interval.
        alarm: Whether the observation refutes the claim.
    """

    name: str
    of: str
    claimed: float
    low: float
    high: float
    alarm: bool


@dataclass(frozen=True)
class Audit:
    """The outcome of an audit.

    Attributes:
        checks: All checks. On an honest mechanism an audit raises any alarm with probability at
            most 5% over its seed, and one that a second audit repeats with at most 0.25%.
        level: Error level of each check and bound.
        sigma_low: Lower end of the interval of the actual over the claimed noise multiplier, for
            the event that is furthest off.
        sigma_high: Upper end of that interval.
        epsilon: Claimed epsilon.
        epsilon_lower: Lower bound of epsilon from guesses of who is in the set; holds without
            assumptions, at ``level``.
        epsilon_lower_gdp: Lower bound from the distance between the scores of members and others,
            assuming that they are normal; an illustration, not a claim.
        epsilon_ceiling: Value of ``epsilon_lower`` if all guesses had been right.
        correct: Number of right guesses.
        guesses: Number of guesses.
        canaries: Number of canaries.
        left_out: Purposes of the selections, which are not audited.
    """

    checks: tuple[Check, ...]
    level: float
    sigma_low: float
    sigma_high: float
    epsilon: float
    epsilon_lower: float
    epsilon_lower_gdp: float
    epsilon_ceiling: float
    correct: int
    guesses: int = GUESSES
    canaries: int = CANARIES
    left_out: tuple[str, ...] = ()

    @property
    def alarms(self) -> tuple[Check, ...]:
        """Checks that refute the claim."""
        return tuple(check for check in self.checks if check.alarm)

    def confirmed_by(self, other: Audit) -> Audit:
        """This audit without the alarms that ``other`` does not raise."""
        raised = {(check.name, check.of) for check in other.alarms}
        checks = (
            replace(check, alarm=check.alarm and (check.name, check.of) in raised)
            for check in self.checks
        )
        return replace(self, checks=tuple(checks))

    @property
    def verdict(self) -> str:
        """One-sentence summary."""
        if not self.alarms:
            return "no check refutes the claim"
        return f"{len(self.alarms)} of {len(self.checks)} checks refute the claim"

    @property
    def limits(self) -> str:
        """Explanation of what this audit can and cannot show."""
        blunt = (
            f"could at best have reached {self.epsilon_ceiling:.2f}, so it cannot refute "
            f"epsilon = {self.epsilon:g}"
            if self.epsilon_ceiling <= self.epsilon
            else f"could at best have reached {self.epsilon_ceiling:.2f}, which takes a gross leak"
        )
        return (
            "An audit refutes claims and proves none. The sharp check is the interval of sigma; "
            f"the lower bound of epsilon, from {self.guesses} guesses, {blunt}. Canaries pass "
            "through the real sampler, clipping, noise and ledger with a small network of their "
            "own; of the method's network the noise on every tensor is checked, and the clipping "
            "of one image's gradient, not its training."
        ) + "".join(
            f" The selection {purpose!r} was left out: it releases no sum."
            for purpose in self.left_out
        )


def judge(
    transcripts: list[Transcript],
    members: NDArray[np.bool_],
    own: OwnReleases,
    budget: PrivacyBudget,
    level: float,
    rng: np.random.Generator,
) -> Audit:
    """Compare observations with the claim.

    Args:
        transcripts: Transcript of each event.
        members: ``(canaries,)``: whether each canary was in the set, by a fair coin.
        own: Releases of the method's own ``fit``.
        budget: The claimed epsilon and delta.
        level: Largest probability with which each check errs on an honest mechanism.
        rng: Breaks ties of discrete statistics, so that their levels are exact.
    """
    by_event = [_checks(transcript, members, level, rng) for transcript in transcripts]
    sigma = max(
        (scale for scale, *_ in by_event), key=lambda check: abs(check.low + check.high - 2)
    )
    evidence = sum((_log_odds(transcript) for transcript in transcripts), np.zeros(len(members)))
    # half of the canaries are members, so if the claim is false the median separates them better
    # than the claimed odds
    leaning = evidence - np.median(evidence)
    surest = np.argsort(-np.abs(leaning))[:GUESSES]
    correct = int(((leaning[surest] > 0) == members[surest]).sum())
    lower = one_run_epsilon(len(members), GUESSES, correct, budget.delta, level)
    mu = _distance(evidence[members], evidence[~members], level)
    return Audit(
        checks=(
            *(check for checks in by_event for check in checks),
            _own_noise_check(own.noise, level),
            _largest_noise_check(own.noise, level),
            _own_clipping_check(own.contributions),
            Check("epsilon", "claim", budget.epsilon, lower, math.inf, lower > budget.epsilon),
        ),
        level=level,
        sigma_low=sigma.low,
        sigma_high=sigma.high,
        epsilon=budget.epsilon,
        epsilon_lower=lower,
        epsilon_lower_gdp=gaussian_dp_epsilon(mu, budget.delta),
        epsilon_ceiling=one_run_epsilon(len(members), GUESSES, GUESSES, budget.delta, level),
        correct=correct,
    )


def _ratio(name: str, of: str, interval: Iterable[float]) -> Check:
    """Check of a ratio that is 1 if the claim is true."""
    low, high = interval
    return Check(name, of, 1.0, low, high, not low <= 1 <= high)


def _checks(
    transcript: Transcript, members: NDArray[np.bool_], level: float, rng: np.random.Generator
) -> list[Check]:
    """Five checks that each err with probability ``level`` if honest, and one that never does.

    The first is the check of the noise scale.
    """
    event, rate = transcript.event, _rate(transcript.event)
    nobody = np.ones(transcript.released.shape[1], bool)
    nobody[: len(members)] = ~members
    noise = transcript.released[:, nobody].astype(float) / event.noise_multiplier
    beyond = proportion_interval(int((np.abs(noise) > TAIL).sum()), noise.size, level)
    gaussian_tail = 2 * float(norm.sf(TAIL))
    sums = noise.sum(0) / math.sqrt(len(noise))
    seen = np.abs(transcript.contributed)
    included = transcript.contributed[:, : len(members)][:, members] > 0.5
    often = proportion_interval(int(included.sum()), included.size, level)
    astray = float(np.minimum(seen, np.abs(transcript.contributed - 1)).max())
    of = event.purpose
    return [
        _ratio("sigma ratio", of, scale_interval(float(np.square(noise).sum()), noise.size, level)),
        _ratio(
            "sigma ratio, summed over steps",
            of,
            scale_interval(float(np.square(sums).sum()), sums.size, level),
        ),
        _ratio("share of noise beyond 2 sigma", of, (end / gaussian_tail for end in beyond)),
        _ratio("mean signal over qT", of, (end / rate for end in often)),
        _ratio("spread of batch sizes", of, _spread(included, rate, level, rng)),
        Check("clipping error", of, 0.0, astray, astray, not astray <= TOLERANCE),
    ]


def _rate(event: Audited) -> float:
    return event.sample_rate if isinstance(event, DPSGDEvent) else 1.0


def _spread(
    included: NDArray[np.bool_], rate: float, level: float, rng: np.random.Generator
) -> tuple[float, float]:
    """Interval of the spread of batch sizes, over the spread under Poisson sampling.

    Each size is mapped to a standard normal by its binomial distribution function, at a random
    place within the jump (Dunn and Smyth 1996), so that the chi-square interval is exact.
    """
    sizes, population = included.sum(1), included.shape[1]
    below, up_to = (binom.cdf(sizes - at, population, rate) for at in (1, 0))
    uniform = below + rng.random(len(sizes)) * (up_to - below)
    # a size that is impossible under the claim is mapped as far out as floats reach
    normal = norm.ppf(uniform.clip(1e-300, 1 - 1e-16))
    return scale_interval(float(np.square(normal).sum()), len(sizes), level)


def _own_clipping_check(contributions: tuple[float, ...]) -> Check:
    largest = max(contributions)
    alarm = not largest <= 1 + TOLERANCE
    return Check("most that one image adds, over C", "method's own", 1.0, largest, largest, alarm)


def _own_noise_check(own: tuple[OwnNoise, ...], level: float) -> Check:
    """Check of the tensor whose noise fits the claim worst, at a level split over all tensors."""

    def fit(noise: OwnNoise) -> float:
        tails = chi2.cdf(noise.sum_squares, noise.count), chi2.sf(noise.sum_squares, noise.count)
        return float(min(tails))

    worst = min(own, key=fit)
    interval = scale_interval(worst.sum_squares, worst.count, level / len(own))
    return _ratio("sigma ratio, method's own tensor", worst.tensor, interval)


def _largest_noise_check(own: tuple[OwnNoise, ...], level: float) -> Check:
    """Check of the largest draw, over what it may be: noise that is cut off has no tail.

    A cut at 3 or 4 sigma leaves every other statistic as it is, and voids the claim, because what
    lies beyond it shows who was in the set. A cut at 4 sigma shows in some 100,000 draws.
    """
    count, largest = sum(noise.count for noise in own), max(noise.largest for noise in own)
    # the largest of n draws is below x with probability (1 - 2 sf(x))^n
    least, most = (
        float(norm.isf(-math.expm1(math.log(share) / count) / 2))
        for share in (level / 2, 1 - level / 2)
    )
    return _ratio("largest noise", "method's own", (largest / most, largest / least))


def _log_odds(transcript: Transcript) -> NDArray[np.float64]:
    """Log-likelihood ratio of member against non-member for each canary, under the claim."""
    event, rate = transcript.event, _rate(transcript.event)
    released = transcript.released[:, :CANARIES].astype(float)
    # N(1, sigma^2) against N(0, sigma^2)
    ratio = (2 * released - 1) / (2 * event.noise_multiplier**2)
    with np.errstate(divide="ignore"):  # log(0) if every image is in each batch
        out_of_batch = np.log1p(-rate)
    total: NDArray[np.float64] = np.logaddexp(out_of_batch, math.log(rate) + ratio).sum(0)
    return total


def _distance(members: NDArray[np.float64], others: NDArray[np.float64], level: float) -> float:
    """Lower confidence limit of the distance of two normal means, in standard deviations."""
    deviation = math.sqrt((members.var(ddof=1) + others.var(ddof=1)) / 2)
    if deviation == 0:
        return 0.0
    error = math.sqrt(1 / len(members) + 1 / len(others))
    return float((members.mean() - others.mean()) / deviation - norm.isf(level) * error)
