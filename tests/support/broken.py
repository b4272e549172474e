"""Deliberately broken twins of the privacy core: each must be caught by the check named for it."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import norm
from torch import Tensor, nn

from dpbench.core.images import Images
from dpbench.core.progress import Silent
from dpbench.core.streams import Streams
from dpbench.parallel.ranks import Ranks
from dpbench.privacy import dpsgd
from dpbench.privacy.budget import Adjacency, PrivacyBudget
from dpbench.privacy.calibration import calibrate, calibrated
from dpbench.privacy.clipping import Objective, trainable
from dpbench.privacy.clipping.vmap import clipped_sum
from dpbench.privacy.crosschecks import epsilon_rdp
from dpbench.privacy.dpsgd import Learner, gaussian_noise, gradient_sum, physical_batch_size, train
from dpbench.privacy.draws import Draws
from dpbench.privacy.epsilon import epsilon
from dpbench.privacy.events import DPSGDEvent, Event, GaussianEvent, HistogramEvent
from dpbench.privacy.ledger import Allowance, PrivacyLedger
from dpbench.privacy.mechanisms import PrivateImages
from dpbench.privacy.sampling import poisson_sample
from dpbench.training.loop import Stage, Stateful
from tests.support.private import KEY, Copies, Gradients, copy_gradients, flat, shaped, shortened
from tests.support.ranks import here

# Clipping engines.


def clips_each_copy(m: nn.Module, o: Objective, copies: Copies, c: float) -> Gradients:
    return shaped(m, shortened(copy_gradients(m, o, copies), c).mean(dim=1).sum(dim=0))


def clips_each_copy_without_mean(m: nn.Module, o: Objective, copies: Copies, c: float) -> Gradients:
    return shaped(m, shortened(copy_gradients(m, o, copies), c).sum(dim=(0, 1)))


def clips_the_batch(m: nn.Module, o: Objective, copies: Copies, c: float) -> Gradients:
    total = copy_gradients(m, o, copies).mean(dim=1).sum(dim=0)
    return shaped(m, shortened(total, c * len(copies[0])))


def clips_each_tensor(m: nn.Module, o: Objective, copies: Copies, c: float) -> Gradients:
    rows = copy_gradients(m, o, copies).mean(dim=1)
    parts = torch.split(rows, [p.numel() for p in trainable(m).values()], dim=1)
    return shaped(m, torch.cat([shortened(part, c).sum(dim=0) for part in parts]))


def never_clips(m: nn.Module, o: Objective, copies: Copies, c: float) -> Gradients:
    return clipped_sum(m, o, copies, 1e30)


def averages(m: nn.Module, o: Objective, copies: Copies, c: float) -> Gradients:
    return {name: part / len(copies[0]) for name, part in clipped_sum(m, o, copies, c).items()}


def lets_nan_through(m: nn.Module, o: Objective, copies: Copies, c: float) -> Gradients:
    rows = copy_gradients(m, o, copies).mean(dim=1)
    factors = (c / rows.norm(dim=1, keepdim=True)).clamp(max=1)
    return shaped(m, (rows * factors).sum(dim=0))


def takes_norms_in_bfloat16(m: nn.Module, o: Objective, copies: Copies, c: float) -> Gradients:
    rows = copy_gradients(m, o, copies).mean(dim=1)
    norms = rows.norm(dim=1, keepdim=True)
    scaled = rows * (c / norms.bfloat16().float()).clamp(max=1)
    return shaped(m, torch.where(norms.isfinite(), scaled, 0).sum(dim=0))


def rounds_sums_to_bfloat16(m: nn.Module, o: Objective, copies: Copies, c: float) -> Gradients:
    return {name: s.bfloat16().float() for name, s in clipped_sum(m, o, copies, c).items()}


# Sums over a logical batch.


def drops_the_ragged_batch(
    m: nn.Module, o: Objective, images: Images, batch: Tensor, *rest: Any
) -> Gradients:
    size = physical_batch_size(o.multiplicity)
    return gradient_sum(m, o, images, batch[: len(batch) // size * size], *rest)


def divides_by_the_realised_batch(
    m: nn.Module, o: Objective, images: Images, batch: Tensor, *rest: Any
) -> Gradients:
    # the loop divides by the expected batch, 1000 here: taken back
    total = gradient_sum(m, o, images, batch, *rest)
    return {name: part * 1000 / max(1, len(batch)) for name, part in total.items()}


def draws_one_after_another(
    o: Objective, images: Images, batch: Tensor, draws: Draws, device: torch.device
) -> Callable[[int, int], Copies]:
    """From one generator, physical batch by physical batch."""
    generator = draws(0)

    def between(first: int, last: int) -> Copies:
        part = images[batch[first:last]]
        return o.draw(part.pixels, part.labels, generator)

    return between


# Ranks.


def _share(batch: Tensor, ranks: Ranks) -> Tensor:
    share = ranks.share(len(batch))
    return batch[share.start : share.stop]


def keeps_its_share(
    m: nn.Module, o: Objective, i: Images, batch: Tensor, c: float, draws: Draws, ranks: Ranks
) -> Gradients:
    return gradient_sum(m, o, i, _share(batch, ranks), c, draws)


def draws_alike_on_every_rank(
    m: nn.Module, o: Objective, i: Images, batch: Tensor, c: float, draws: Draws, ranks: Ranks
) -> Gradients:
    total = gradient_sum(m, o, i, _share(batch, ranks), c, draws)
    ranks.add_up(list(total.values()))
    return total


def samples_on_every_rank(
    m: nn.Module, o: Objective, i: Images, batch: Tensor, c: float, draws: Draws, ranks: Ranks
) -> Gradients:
    """A batch for each rank, each of the whole sample rate."""
    own = ((batch + ranks.rank) % len(i)).sort().values
    total = gradient_sum(m, o, i, own, c, draws)
    ranks.add_up(list(total.values()))
    return total


def divides_by_its_share(
    m: nn.Module, o: Objective, i: Images, batch: Tensor, c: float, draws: Draws, ranks: Ranks
) -> Gradients:
    # the loop divides by the expected batch, 20 here: taken back
    total = gradient_sum(m, o, i, batch, c, draws, ranks)
    count = max(1, len(ranks.share(len(batch)))) * ranks.size
    return {name: part * 20 / count for name, part in total.items()}


def of_every_rank(like: Gradients, streams: Streams, purpose: str, step: int) -> Gradients:
    """Each rank's noise, added up: the scale is wrong."""
    drawn = gaussian_noise(like, streams, purpose, step)
    here().add_up(list(drawn.values()))
    return drawn


def of_its_own(like: Gradients, streams: Streams, purpose: str, step: int) -> Gradients:
    """From a key of each rank: the scale is right, but ranks can take their mean."""
    return gaussian_noise(like, Streams(0, bytes([here().rank]) + KEY[1:]), purpose, step)


def of_its_own_added_up(like: Gradients, streams: Streams, purpose: str, step: int) -> Gradients:
    """From a key of each rank, added up: as many times the variance as there are ranks."""
    drawn = of_its_own(like, streams, purpose, step)
    here().add_up(list(drawn.values()))
    return drawn


# Noise.

Noise = Callable[[Gradients, Streams, str, int], Gradients]


def scaled_by(factor: float) -> Noise:
    def noise(like: Gradients, streams: Streams, purpose: str, step: int) -> Gradients:
        drawn = gaussian_noise(like, streams, purpose, step)
        return {name: factor * part for name, part in drawn.items()}

    return noise


def missing_on(name: str) -> Noise:
    def noise(like: Gradients, streams: Streams, purpose: str, step: int) -> Gradients:
        drawn = gaussian_noise(like, streams, purpose, step)
        return {**drawn, name: torch.zeros_like(drawn[name])}

    return noise


def the_same_at_every_step(like: Gradients, s: Streams, purpose: str, step: int) -> Gradients:
    return gaussian_noise(like, s, purpose, 0)


def the_same_for_every_purpose(like: Gradients, s: Streams, purpose: str, step: int) -> Gradients:
    return gaussian_noise(like, s, "any", step)


def the_same_on_every_tensor(like: Gradients, s: Streams, purpose: str, step: int) -> Gradients:
    drawn = flat(gaussian_noise(like, s, purpose, step))
    return {name: drawn[: part.numel()].view(part.shape) for name, part in like.items()}


def uniform(like: Gradients, streams: Streams, purpose: str, step: int) -> Gradients:
    draw = streams.secret("dp-noise", purpose, step).uniform
    width = math.sqrt(3)  # unit variance
    return {
        name: torch.from_numpy(draw(-width, width, tuple(part.shape))).float()
        for name, part in like.items()
    }


def from_the_public_seed(like: Gradients, s: Streams, purpose: str, step: int) -> Gradients:
    generator = s.public("diffusion-noise", purpose, step)
    return {name: torch.randn(part.shape, generator=generator) for name, part in like.items()}


class Quieter(Streams):
    """Secret noise of 0.97 times the scale."""

    def secret(self, name: str, *path: object) -> Any:
        honest = super().secret(name, *path)

        class Generator:
            def standard_normal(self, size: int, dtype: str) -> Any:
                return np.float32(0.97) * honest.standard_normal(size, dtype=dtype)  # type: ignore[call-overload]

        return Generator()


# Samplers.


def shuffles(rng: np.random.Generator, population: int, sample_rate: float) -> Tensor:
    chosen = rng.permutation(population)[: round(population * sample_rate)]
    return torch.from_numpy(np.sort(chosen))


def replaces(rng: np.random.Generator, population: int, sample_rate: float) -> Tensor:
    size = rng.binomial(population, sample_rate)
    return torch.from_numpy(rng.integers(0, population, size))


def samples_too_often(rng: np.random.Generator, population: int, sample_rate: float) -> Tensor:
    return poisson_sample(rng, population, 1.05 * sample_rate)


def favours_some(rng: np.random.Generator, population: int, sample_rate: float) -> Tensor:
    rates = sample_rate * np.where(np.arange(population) % 2, 1.1, 0.9)
    return torch.from_numpy(np.flatnonzero(rng.random(population) < rates))


def takes_neighbours_together(
    rng: np.random.Generator, population: int, sample_rate: float
) -> Tensor:
    pairs = rng.random((population + 1) // 2) < sample_rate
    return torch.from_numpy(np.flatnonzero(np.repeat(pairs, 2)[:population]))


def takes_the_first_batch_again(
    rng: np.random.Generator, population: int, sample_rate: float
) -> Tensor:
    return poisson_sample(Streams(0, bytes(32)).secret("poisson", 0), population, sample_rate)


def never_empty(rng: np.random.Generator, population: int, sample_rate: float) -> Tensor:
    while len(batch := poisson_sample(rng, population, sample_rate)) == 0:
        pass
    return batch


# Accounting.


def gaussian_dp(
    events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove"
) -> float:
    """By the central limit theorem (Bu et al. 2020): optimistic."""
    total = 0.0
    for event in events:
        rate = event.sample_rate if isinstance(event, DPSGDEvent) else 1.0
        total += rate**2 * event.steps * math.expm1(event.noise_multiplier**-2)
    mu = math.sqrt(total)

    def excess(eps: float) -> float:
        tail = math.exp(eps + float(norm.logcdf(-eps / mu - mu / 2)))
        return float(norm.cdf(-eps / mu + mu / 2)) - tail - delta

    return float(brentq(excess, 0, 200))


def forgets_steps(
    events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove"
) -> float:
    once = [replace(e, steps=1) if isinstance(e, DPSGDEvent) else e for e in events]
    return epsilon(once, delta, adjacency)


def takes_the_rate_of_a_loader(
    events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove"
) -> float:
    """1 / len(loader) in place of batch / N, as Opacus' make_private does."""
    rounded = [
        replace(e, sample_rate=1 / math.ceil(1 / e.sample_rate)) if isinstance(e, DPSGDEvent) else e
        for e in events
    ]
    return epsilon(rounded, delta, adjacency)


def ignores_adjacency(
    events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove"
) -> float:
    return epsilon(events, delta)


def forgets_the_sampling(
    events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove"
) -> float:
    return epsilon(
        [replace(e, sample_rate=1.0) if isinstance(e, DPSGDEvent) else e for e in events],
        delta,
        adjacency,
    )


def classical_gaussian(
    events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove"
) -> float:
    (event,) = events
    assert isinstance(event, GaussianEvent)
    return math.sqrt(2 * math.log(1.25 / delta)) / event.noise_multiplier


def rdp_of_half_the_rate(events: Iterable[Event], delta: float) -> float:
    halved = [
        replace(e, sample_rate=e.sample_rate / 2) for e in events if isinstance(e, DPSGDEvent)
    ]
    return epsilon_rdp(halved, delta)


def calibrates_too_low(
    budget: PrivacyBudget, sample_rate: float, steps: int, others: tuple[Event, ...] = ()
) -> float:
    return 0.999 * calibrate(budget, sample_rate, steps, others)


def calibrates_without_the_others(
    budget: PrivacyBudget, sample_rate: float, steps: int, others: tuple[Event, ...] = ()
) -> float:
    return calibrate(budget, sample_rate, steps)


# Several mechanisms.


def half_price(events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove") -> float:
    return epsilon(events, delta, adjacency) / 2


def doubles_for_replacing(
    events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove"
) -> float:
    """As if the difference of two one-hot vectors had norm 2."""
    sums = [GaussianEvent(event.noise_multiplier, 1.0, event.purpose) for event in events]
    return epsilon(sums, delta, adjacency)


def triples_for_replacing(
    events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove"
) -> float:
    factor = 3 if adjacency == "replace_one" else 1
    less = [replace(e, noise_multiplier=e.noise_multiplier / factor) for e in events]
    return epsilon(less, delta)


def selects_like_gaussian_noise(
    events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove"
) -> float:
    sums = [GaussianEvent(event.noise_multiplier, 1.0, event.purpose) for event in events]
    return epsilon(sums, delta, adjacency)


def dearest_only(
    events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove"
) -> float:
    return max(epsilon([event], delta, adjacency) for event in events)


def adds_up_twice(
    events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove"
) -> float:
    events = tuple(events)
    return len(events) * sum(epsilon([event], delta, adjacency) for event in events)


def forgets_the_last(
    events: Iterable[Event], delta: float, adjacency: Adjacency = "add_remove"
) -> float:
    first, *others = events
    return epsilon([first, *others[:-1]], delta, adjacency)


def trains_as_if_alone(split: Callable[..., tuple[Event, ...]]) -> Callable[..., tuple[Event, ...]]:
    """Gives training the whole budget, whatever else is spent."""

    def altered(budget: PrivacyBudget, *how: Any) -> tuple[Event, ...]:
        *side, training = split(budget, *how)
        return (*side, calibrated(training, budget))

    return altered


# Histograms and choices.


_honest_histogram = PrivateImages.label_histogram  # before a test puts a twin in its place


def _counts(private: PrivateImages) -> Tensor:
    return _honest_histogram(private, HistogramEvent(0.0, "counts"))


def counts_twice(private: PrivateImages, event: HistogramEvent) -> Tensor:
    return 2 * _counts(private)


def counts_pixels_too(private: PrivateImages, event: HistogramEvent) -> Tensor:
    images = private.unprotected()
    return _counts(private) + (images.pixels == 0).sum() / 100


def as_long_as_the_largest_label(private: PrivateImages, event: HistogramEvent) -> Tensor:
    return torch.bincount(private.unprotected().labels, minlength=10).float()


def scores_without_bound(images: Images, candidate: Any, score: Any) -> Tensor:
    return score(candidate, images).double().sum()


def scores_with_a_floor_only(images: Images, candidate: Any, score: Any) -> Tensor:
    return score(candidate, images).double().nan_to_num(nan=0).clamp(min=0).sum()


def lets_scores_sink(images: Images, candidate: Any, score: Any) -> Tensor:
    return score(candidate, images).double().nan_to_num(nan=0).clamp(max=1).sum()


def _selects(scale: float, noise: str = "gumbel") -> Any:
    """Adds ``scale`` times the noise that was asked for, or noise of another kind."""

    def select(private: PrivateImages, candidates: Any, score: Any, event: Any) -> Any:
        images, streams = private.unprotected(), private._PrivateImages__streams  # type: ignore[attr-defined]
        totals = [float(score(candidate, images).sum()) for candidate in candidates]
        draw = getattr(streams.secret("dp-noise", event.purpose, 0), noise)
        noisy = totals + scale * event.noise_multiplier * draw(size=len(totals))
        return candidates[int(noisy.argmax())]

    return select


selects_at_twice_the_sensitivity = _selects(0.5)
selects_the_best = _selects(0.0)
selects_by_gauss = _selects(1.0, "standard_normal")


# The ledger and the loop.


class Lenient(PrivacyLedger):
    """Spends whatever it is asked to."""

    def spend(self, event: Event) -> Allowance:
        budget, self.budget = self.budget, PrivacyBudget(math.inf)
        try:
            return super().spend(event)
        finally:
            self.budget = budget


class Forgetful(PrivacyLedger):
    """Does not read its journal."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._written = []


class Unwritten(PrivacyLedger):
    """Writes nothing down."""

    def __init__(self, budget: PrivacyBudget, journal: object = None) -> None:
        super().__init__(budget)


class Permissive(PrivacyLedger):
    """Lets a purpose be spent twice."""

    def spend(self, event: Event) -> Allowance:
        count = len(self.events)
        allowance = super().spend(replace(event, purpose=f"{event.purpose} {count}"))
        return allowance


class Hasty(PrivacyLedger):
    """Certifies a run that is not over."""

    def certificate(self, reproducible: bool) -> dict[str, Any]:
        made = [allowance.released for allowance in self._allowances]
        for allowance in self._allowances:
            allowance.released = allowance.event.steps
        try:
            return super().certificate(reproducible)
        finally:
            for allowance, before in zip(self._allowances, made, strict=True):
                allowance.released = before


class LastOnly(PrivacyLedger):
    """Adds nothing up."""

    def spent(self) -> float:
        return epsilon(self.events[-1:], self.budget.delta, self.budget.adjacency)


def makes_one_step_more(images: Images, size: int, learner: Learner, *rest: Any) -> None:
    train(images, size, learner, *rest)
    learner.optimizer.step()


def _trains_by(change: Callable[[DPSGDEvent], DPSGDEvent]) -> Any:
    """Training that goes by something else than the event it was allowed."""

    def altered(
        images: Images,
        size: int,
        learner: Learner,
        objective: Objective,
        allowance: Allowance,
        *rest: Any,
    ) -> None:
        honest = allowance.event
        assert isinstance(honest, DPSGDEvent)
        allowance.event = change(honest)
        # the divisor stays what the check takes it for
        size = round(size * honest.sample_rate / allowance.event.sample_rate)
        train(images, size, learner, objective, allowance, *rest)
        allowance.event = honest

    return altered


def averages_weights_without_noise(
    images: Images,
    size: int,
    learner: Learner,
    objective: Objective,
    allowance: Allowance,
    streams: Streams,
    stage: Stage,
    *rest: Any,
) -> None:
    """Trains a second time without noise, and keeps the average of that."""
    clean = copy.deepcopy(learner)
    clean.optimizer._optimizer_step_post_hooks.clear()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(dpsgd, "gaussian_noise", scaled_by(0.0))
        scratch = Stage("training", Path(folder) / "clean.stage", Silent())
        once_more = Allowance(allowance.event)
        train(images, size, clean, objective, once_more, streams, scratch, *rest)
    train(images, size, learner, objective, allowance, streams, stage, *rest)
    learner.average.load_state_dict(clean.average.state_dict())


samples_at_twice_the_rate = _trains_by(lambda e: replace(e, sample_rate=2 * e.sample_rate))
adds_a_tenth_less_noise = _trains_by(
    lambda e: replace(e, noise_multiplier=0.9 * e.noise_multiplier)
)
clips_at_twice_the_norm = _trains_by(
    lambda e: replace(e, noise_multiplier=e.noise_multiplier / 2, clipping_norm=2 * e.clipping_norm)
)


def starts_over(stage: Stage, state: Mapping[str, Stateful]) -> int:
    """A resume that has forgotten how far it came."""
    return 0


# Streams.


class SeededStreams(Streams):
    """Secret streams that derive from the public seed."""

    def secret(self, name: str, *path: object) -> np.random.Generator:
        return np.random.default_rng([self._seed, *str((name, path)).encode()])


class ShortStreams(Streams):
    """Uses 32 bits of the key."""

    def secret(self, name: str, *path: object) -> np.random.Generator:
        return Streams(0, self._key[:4] + bytes(28)).secret(name, *path)


class RunTogetherStreams(Streams):
    """Joins the parts of a path without marking where they end."""

    def secret(self, name: str, *path: object) -> np.random.Generator:
        return super().secret(name, "".join(map(str, path)))
