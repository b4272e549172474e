"""The canary audit: what the mechanisms of a run do, seen from outside, against what is claimed.

Canaries are examples whose gradient is known: canary i has norm 10 C in a direction of its own.
They, and nothing else, are the private set of two runs through the real mechanisms: handle,
ledger, Poisson sampler, clipping engine and noise, at the sample rate, noise multiplier, clipping
norm and number of steps that are claimed. Whether a canary is in the set is decided by a coin. A
direction that no member owns shows the noise. A second run on the empty set under the same key has
the same noise, so the difference of the two is what each member contributed, without any noise.

The canaries have a network of their own, of two embeddings, so that the audit takes seconds. The
method's own ``fit`` is run too, for a few private steps. On the empty set every tensor that it
releases must be noise of the claimed scale; one image more must not move the first release by more
than C. That is one image at the initial weights: comparing many neighbouring sets sees more.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binom, chi2, norm
from torch import Tensor, nn

from dpbench.core.errors import RunFailed, UserError
from dpbench.core.images import Images, ImageSpec
from dpbench.core.progress import Progress, Silent, Task
from dpbench.core.streams import Streams, reproducible_key
from dpbench.privacy.audit.bounds import (
    gaussian_dp_epsilon,
    one_run_epsilon,
    proportion_interval,
    scale_interval,
)
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.clipping import Objective, Predict, as_rows, of_examples, trainable
from dpbench.privacy.clipping.selection import Executions
from dpbench.privacy.dpsgd import Learner
from dpbench.privacy.events import DPSGDEvent, Event, GaussianEvent, HistogramEvent
from dpbench.privacy.ledger import PrivacyLedger
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo
from dpbench.training.averaging import ExponentialAverage
from dpbench.training.loop import Stage

# The chance of an honest mechanism to raise any alarm in one audit; split over the checks. A second
# audit, split over the checks that raised one, must repeat an alarm: leaderboards have hundreds of
# runs, and .25% of honest ones raise it twice.
LEVEL = 0.05
CANARIES = 1000
# Guesses are made where they are surest: more of them would mostly be coin flips.
GUESSES = 500
CANARY_NORM = 10.0
# Draws of noise on directions that no canary owns: enough to see 3% of the scale.
SPARE_DRAWS = 30_000
# A canary's two copies pull apart, so that clipping each copy leaves nothing of their mean.
COPY_WEIGHTS = (3.0, -1.0)
# Private steps of the method's own training.
OWN_STEPS = 4
# What a contribution may differ from 0 or C, over C: far above rounding.
TOLERANCE = 0.01
TAIL = 2.0

Array = NDArray[np.float32]
Audited = GaussianEvent | HistogramEvent | DPSGDEvent


@dataclass(frozen=True)
class Mechanism:
    """What is audited.

    Attributes:
        info: What is public about the private set.
        budget: What is claimed.
        events: The events that the claim rests on, in order.
        fit: Runs the method on a handle, leaving out what it does without private images.
        device: Where to compute.
        executions: Choose how gradients are computed; the canaries go by what is chosen for the
            method's network. None for what works for every model.
    """

    info: PrivateSetInfo
    budget: PrivacyBudget
    events: tuple[Event, ...]
    fit: Callable[[PrivateImages], object]
    device: torch.device
    executions: Executions | None = None


@dataclass(frozen=True)
class Transcript:
    """What the canary runs released for one event; everything in units of C.

    Attributes:
        event: What is claimed.
        released: ``(steps, rows)``: each step's sum, noise included, along each direction; the
            first directions are the canaries', the others nobody's.
        contributed: ``(steps, rows)``: the same without its noise.
    """

    event: Audited
    released: Array
    contributed: Array


@dataclass(frozen=True)
class OwnNoise:
    """What the method itself released on no image, in one tensor; in units of sigma C.

    Attributes:
        tensor: Event and name.
        sum_squares: Over all values and steps.
        count: How many those are.
    """

    tensor: str
    sum_squares: float
    count: int


@dataclass(frozen=True)
class OwnReleases:
    """What the method itself released, with its own network or features.

    Attributes:
        noise: Of each tensor.
        contributions: For each event, the norm of what one image adds to the first sum, over C.
    """

    noise: tuple[OwnNoise, ...]
    contributions: tuple[float, ...]


@dataclass(frozen=True)
class Check:
    """A quantity that is known if the claim is true, and what was seen of it.

    Attributes:
        name: Of the quantity.
        of: What it was seen on: an event's purpose, a tensor.
        claimed: Its value under the claim.
        low: Lower end of what was seen.
        high: Upper end.
        alarm: Whether this refutes the claim.
    """

    name: str
    of: str
    claimed: float
    low: float
    high: float
    alarm: bool


@dataclass(frozen=True)
class Audit:
    """The outcome.

    Attributes:
        checks: All of them; together they raise an alarm on an honest mechanism in at most 5% of
            audits, and one that a second audit repeats in at most .25%.
        level: The error level of each check and bound.
        sigma_low: Lower end of the interval of actual over claimed noise multiplier.
        sigma_high: Upper end; both of the event that is furthest off.
        epsilon: Claimed.
        epsilon_lower: By guessing who was in the set; holds without assumptions, at ``level``.
        epsilon_lower_gdp: By the distance of scores of those in and out, assumed to be normal: an
            illustration, never a claim.
        epsilon_ceiling: What ``epsilon_lower`` would be had all guesses been right.
        correct: How many guesses were right.
        guesses: Of how many.
        canaries: How many canaries there were.
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

    @property
    def alarms(self) -> tuple[Check, ...]:
        """The checks that refute the claim."""
        return tuple(check for check in self.checks if check.alarm)

    def confirmed_by(self, other: Audit) -> Audit:
        """The same, without the alarms that the other audit does not raise."""
        raised = {(check.name, check.of) for check in other.alarms}
        checks = (
            replace(check, alarm=check.alarm and (check.name, check.of) in raised)
            for check in self.checks
        )
        return replace(self, checks=tuple(checks))

    @property
    def verdict(self) -> str:
        """The outcome in a sentence."""
        if not self.alarms:
            return "no check refutes the claim"
        return f"{len(self.alarms)} of {len(self.checks)} checks refute the claim"

    @property
    def limits(self) -> str:
        """What this audit can show and what it cannot, for people."""
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
        )


def audit(mechanism: Mechanism, seed: int, progress: Progress) -> Audit:
    """Run the mechanisms of a claim on canaries and compare; after an alarm, once more.

    No private image is read, so all draws derive from ``seed``. An alarm stays if the second audit,
    of canaries and noise of its own, raises it too; all else is what the first audit saw.

    Args:
        mechanism: What is audited.
        seed: Another seed is an independent audit.
        progress: Who is told.

    Raises:
        UserError: There is no claim to audit, or it rests on events that no audit is known for.
        RunFailed: The mechanisms made other releases than the events say: no statistics needed.
    """
    if not mechanism.budget.private:
        raise UserError("there is no privacy claim to audit: epsilon is inf")
    if not mechanism.events:
        raise UserError("there is nothing to audit: the method releases nothing private")
    events = tuple(event for event in mechanism.events if isinstance(event, Audited))
    if events != mechanism.events:
        raise UserError("the method makes releases that no audit knows: it knows Gaussian ones")
    first = _audit_once(mechanism, events, level_of_each(len(events)), seed, progress)
    if not first.alarms:
        return first
    progress.note("a check raised an alarm: auditing again, with other canaries and noise")
    again = Streams(seed).seed("evaluation", "canaries", "again")
    second = _audit_once(mechanism, events, LEVEL / len(first.alarms), again, progress)
    return first.confirmed_by(second)


def level_of_each(events: int) -> float:
    """The level of each check of one audit of some events, so that all together err at LEVEL."""
    # five of each event, that of the method's own noise, and the bound of epsilon
    return LEVEL / (5 * events + 2)


def _audit_once(
    mechanism: Mechanism, events: tuple[Audited, ...], level: float, seed: int, progress: Progress
) -> Audit:
    streams = Streams(seed, reproducible_key(Streams(seed).seed("evaluation", "canaries")))
    coins = streams.public("evaluation", "canaries", "membership")
    members = (torch.rand(CANARIES, generator=coins) < 0.5).numpy()
    steps = sum(event.steps for event in events)
    with (
        tempfile.TemporaryDirectory() as folder,
        progress.task("canaries", 2 * steps + OWN_STEPS, "steps") as task,
    ):
        scratch = Path(folder)
        own = _own_releases(mechanism, streams, scratch)
        task.advance(OWN_STEPS)
        owned = torch.from_numpy(np.flatnonzero(members))
        released = _canary_run(mechanism, events, owned, streams, scratch / "in", task)
        noise = _canary_run(mechanism, events, owned[:0], streams, scratch / "out", task)
    transcripts = [
        Transcript(event, with_members, with_members - without)
        for event, with_members, without in zip(events, released, noise, strict=True)
    ]
    rng = np.random.default_rng(streams.seed("evaluation", "canaries", "ties"))
    return judge(transcripts, members, own, mechanism.budget, level, rng)


# The runs.


class Canaries(nn.Module):
    """A weight for each row in each of two tensors; the output is the sum of a row's two."""

    def __init__(self, rows: int) -> None:
        """All weights are zero."""
        super().__init__()
        # given their weights, because embeddings draw them from the global generator
        self.first = nn.Embedding(rows, 1, _weight=torch.zeros(rows, 1))
        self.second = nn.Embedding(rows, 1, _weight=torch.zeros(rows, 1))

    def forward(self, rows: Tensor) -> Tensor:
        """Maps ``(N,)``, int64, to ``(N,)``."""
        both: Tensor = self.first(rows) + self.second(rows)
        return both.squeeze(1)


@dataclass(frozen=True)
class CanaryObjective:
    """A loss whose gradient has norm ``size`` along the direction of an image's label.

    Attributes:
        size: Norm of the gradient.
        multiplicity: K.
    """

    size: float
    multiplicity: int = len(COPY_WEIGHTS)

    def draw(self, pixels: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, ...]:
        """Each copy's row and weight, ``(B, K)``."""
        weights = torch.tensor(COPY_WEIGHTS, device=labels.device)
        return labels[:, None].expand(-1, self.multiplicity), weights.expand(len(labels), -1)

    def loss(self, predict: Predict, *copies: Tensor) -> Tensor:
        """See ``Objective``."""
        rows, weights = copies
        outputs = of_examples(predict(as_rows(rows)), len(rows))
        return self.size / math.sqrt(2) * (outputs * weights).mean(1)


def _rows(event: Audited) -> int:
    return CANARIES + max(CANARIES, SPARE_DRAWS // event.steps)


def _along_rows(first: Tensor, second: Tensor) -> Tensor:
    """The part of a vector over both tensors along each row's direction."""
    return ((first + second) / math.sqrt(2)).flatten().cpu()


def _canary_run(
    mechanism: Mechanism,
    events: tuple[Audited, ...],
    owned: Tensor,
    streams: Streams,
    folder: Path,
    task: Task,
) -> list[Array]:
    """Spend all events on the canaries ``owned``; for each event what was released, over C."""
    images = Images(torch.zeros(len(owned), 1, 1, 1, dtype=torch.uint8), owned)
    ledger = PrivacyLedger(mechanism.budget)
    folder.mkdir()
    transcripts = []
    for number, event in enumerate(events):
        info = replace(mechanism.info, spec=ImageSpec(1, 1, 1), classes=_rows(event))
        private = PrivateImages(images, info, ledger, streams, mechanism.executions)
        if isinstance(event, DPSGDEvent):
            stage = Stage("canaries", folder / f"{number}.stage", Silent())
            sums = _canary_training(private, event, stage, mechanism.device, task)
        elif isinstance(event, HistogramEvent):
            sums = [private.label_histogram(event)]  # each canary has a class of its own
            task.advance(1)
        else:
            sums = [_canary_sum(private, event)]
            task.advance(1)
        if len(sums) != event.steps:
            raise RunFailed(
                f"{event.purpose}: {len(sums)} releases were made but {event.steps} are claimed"
            )
        released = _finite(event.purpose, torch.stack(sums))
        transcripts.append((released / event.sensitivity).numpy())
    ledger.certificate(reproducible=True)  # raises where the counters do not agree
    return transcripts


def _canary_sum(private: PrivateImages, event: GaussianEvent) -> Tensor:
    rows = _rows(event)

    def features(part: Images) -> Tensor:
        vectors = torch.zeros(len(part), 2, rows)
        vectors[torch.arange(len(part)), :, part.labels] = CANARY_NORM / math.sqrt(2)
        return event.clipping_norm * vectors.flatten(1)

    return _along_rows(*torch.split(private.gaussian_sum(features, event), rows))


def _canary_training(
    private: PrivateImages, event: DPSGDEvent, stage: Stage, device: torch.device, task: Task
) -> list[Tensor]:
    model = Canaries(_rows(event)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    learner = Learner(model, optimizer, ExponentialAverage(model, 0.0))
    sums: list[Tensor] = []

    def keep(gradients: dict[str, Tensor]) -> None:
        sums.append(_along_rows(*gradients.values()))
        task.advance(1)

    _watch(learner, event.sample_rate * private.info.nominal_size, keep)
    private.dp_sgd(learner, CanaryObjective(CANARY_NORM * event.clipping_norm), event, stage)
    return sums


def _finite(what: str, released: Tensor) -> Tensor:
    if not released.isfinite().all():
        raise RunFailed(f"{what}: releases hold values that are not finite")
    return released


def _watch(learner: Learner, batch_size: float, keep: Callable[[dict[str, Tensor]], None]) -> None:
    """Pass what each step of a learner's optimizer gets, times ``batch_size``, to ``keep``."""
    parameters = trainable(learner.model)

    def read(*_: object) -> None:
        keep({n: p.grad * batch_size for n, p in parameters.items() if p.grad is not None})

    learner.optimizer.register_step_pre_hook(read)


class _Watched(PrivateImages):
    """A handle that keeps what a method releases. Everyone is in each of only a few steps.

    Its ledger has no limit: whether the budget allows the events is for the canaries to see.
    """

    def __init__(
        self, mechanism: Mechanism, images: Images, steps: int, streams: Streams, folder: Path
    ) -> None:
        ledger = PrivacyLedger(PrivacyBudget(math.inf))
        super().__init__(images, mechanism.info, ledger, streams, mechanism.executions)
        folder.mkdir()
        self._claimed, self._steps, self._folder = mechanism.budget, steps, folder
        self.spent: list[Audited] = []
        self.released: list[dict[str, list[Tensor]]] = []  # of each event, tensor and step; over C

    @property
    def budget(self) -> PrivacyBudget:
        return self._claimed  # what methods calibrate their noise to

    def dp_sgd(
        self, learner: Learner, objective: Objective, event: DPSGDEvent, stage: Stage
    ) -> None:
        self._spend(event)
        few = replace(event, sample_rate=1.0, steps=min(event.steps, self._steps))
        _watch(learner, float(self.info.nominal_size), self._keep)
        stage = Stage("canaries", self._folder / f"{len(self.spent)}.stage", Silent())
        super().dp_sgd(learner, objective, few, stage)

    def gaussian_sum(self, features: Callable[[Images], Tensor], event: GaussianEvent) -> Tensor:
        self._spend(event)
        total = super().gaussian_sum(features, event)
        self._keep({"sum": total})
        return total

    def label_histogram(self, event: HistogramEvent) -> Tensor:
        self._spend(event)
        counts = super().label_histogram(event)
        self._keep({"counts": counts})
        return counts

    def _spend(self, event: Audited) -> None:
        self.spent.append(event)
        self.released.append({})

    def _keep(self, totals: dict[str, Tensor]) -> None:
        event = self.spent[-1]
        for name, total in totals.items():
            steps = self.released[-1].setdefault(name, [])
            steps.append(_finite(event.purpose, total.cpu().double()) / event.sensitivity)


def _own_releases(mechanism: Mechanism, streams: Streams, folder: Path) -> OwnReleases:
    """What the method's own ``fit`` releases on no image, and on one."""
    spec = mechanism.info.spec
    rng = streams.public("evaluation", "canaries", "image")
    # black and white, for a large gradient
    pixels = 255 * torch.randint(0, 2, (1, *spec.shape), generator=rng, dtype=torch.uint8)
    one = Images(pixels, torch.zeros(1, dtype=torch.int64))
    without = _Watched(mechanism, one[:0], OWN_STEPS, streams, folder / "without")
    with_one = _Watched(mechanism, one, 1, streams, folder / "with one")
    for handle in (without, with_one):
        mechanism.fit(handle)
        if tuple(handle.spent) != mechanism.events:
            raise RunFailed(
                f"the method spends {handle.spent}, the claim rests on {list(mechanism.events)}"
            )
    noise, contributions = [], []
    for event, nobody, somebody in zip(
        without.spent, without.released, with_one.released, strict=True
    ):
        for name, steps in nobody.items():
            drawn = torch.stack(steps) / event.noise_multiplier
            tensor = f"{event.purpose}: {name}"
            noise.append(OwnNoise(tensor, float(drawn.square().sum()), drawn.numel()))
        # the first step only: after it the weights are not the same
        differences = [somebody[name][0] - steps[0] for name, steps in nobody.items()]
        contributions.append(math.hypot(*(float(part.norm()) for part in differences)))
    return OwnReleases(tuple(noise), tuple(contributions))


# The statistics.


def judge(
    transcripts: list[Transcript],
    members: NDArray[np.bool_],
    own: OwnReleases,
    budget: PrivacyBudget,
    level: float,
    rng: np.random.Generator,
) -> Audit:
    """Compare what was seen with the claim.

    Args:
        transcripts: One for each event.
        members: ``(canaries,)``: who was in the set, each by a fair coin.
        own: What the method itself released.
        budget: The claim.
        level: In how many honest cases each check errs, at most.
        rng: Breaks ties of discrete statistics, so that their levels are exact.
    """
    by_event = [_checks(transcript, members, level, rng) for transcript in transcripts]
    sigma = max(
        (scale for scale, *_ in by_event), key=lambda check: abs(check.low + check.high - 2)
    )
    evidence = sum((_log_odds(transcript) for transcript in transcripts), np.zeros(len(members)))
    # half were in: where the claim is false the median parts them better than the claimed odds
    leaning = evidence - np.median(evidence)
    surest = np.argsort(-np.abs(leaning))[:GUESSES]
    correct = int(((leaning[surest] > 0) == members[surest]).sum())
    lower = one_run_epsilon(len(members), GUESSES, correct, budget.delta, level)
    mu = _distance(evidence[members], evidence[~members], level)
    return Audit(
        checks=(
            *(check for checks in by_event for check in checks),
            _own_noise_check(own.noise, level),
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
    """Of a ratio that is 1 if the claim is true."""
    low, high = interval
    return Check(name, of, 1.0, low, high, not low <= 1 <= high)


def _checks(
    transcript: Transcript, members: NDArray[np.bool_], level: float, rng: np.random.Generator
) -> list[Check]:
    """Five checks that err in ``level`` of honest cases each, and one that never does.

    The first is that of the noise's scale.
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
    """Interval of the spread of batch sizes over that of Poisson sampling.

    Each size is turned into a standard normal by its binomial distribution function, at a random
    place within its jump (Dunn and Smyth 1996), so that their chi-square interval is exact.
    """
    sizes, population = included.sum(1), included.shape[1]
    below, up_to = (binom.cdf(sizes - at, population, rate) for at in (1, 0))
    uniform = below + rng.random(len(sizes)) * (up_to - below)
    # a size that cannot be under the claim is as far out as floats go
    normal = norm.ppf(uniform.clip(1e-300, 1 - 1e-16))
    return scale_interval(float(np.square(normal).sum()), len(sizes), level)


def _own_clipping_check(contributions: tuple[float, ...]) -> Check:
    largest = max(contributions)
    alarm = not largest <= 1 + TOLERANCE
    return Check("most that one image adds, over C", "method's own", 1.0, largest, largest, alarm)


def _own_noise_check(own: tuple[OwnNoise, ...], level: float) -> Check:
    """The tensor whose noise fits its claim worst, at a level that counts them all."""

    def fit(noise: OwnNoise) -> float:
        tails = chi2.cdf(noise.sum_squares, noise.count), chi2.sf(noise.sum_squares, noise.count)
        return float(min(tails))

    worst = min(own, key=fit)
    interval = scale_interval(worst.sum_squares, worst.count, level / len(own))
    return _ratio("sigma ratio, method's own tensor", worst.tensor, interval)


def _log_odds(transcript: Transcript) -> NDArray[np.float64]:
    """Log-likelihood ratio of in against out for each canary, under the claim: the best score."""
    event, rate = transcript.event, _rate(transcript.event)
    released = transcript.released[:, :CANARIES].astype(float)
    # of N(1, sigma^2) against N(0, sigma^2)
    ratio = (2 * released - 1) / (2 * event.noise_multiplier**2)
    with np.errstate(divide="ignore"):  # the logarithm of 0 where everyone is in each batch
        out_of_batch = np.log1p(-rate)
    total: NDArray[np.float64] = np.logaddexp(out_of_batch, math.log(rate) + ratio).sum(0)
    return total


def _distance(members: NDArray[np.float64], others: NDArray[np.float64], level: float) -> float:
    """Lower confidence limit of the distance of two normal samples in standard deviations."""
    deviation = math.sqrt((members.var(ddof=1) + others.var(ddof=1)) / 2)
    if deviation == 0:
        return 0.0
    error = math.sqrt(1 / len(members) + 1 / len(others))
    return float((members.mean() - others.mean()) / deviation - norm.isf(level) * error)
