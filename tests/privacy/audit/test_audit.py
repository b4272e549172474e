from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dpbench.core.errors import RunFailed, UserError
from dpbench.core.images import ImageSpec
from dpbench.core.progress import Silent
from dpbench.core.streams import Streams, reproducible_key
from dpbench.privacy import audit as auditing
from dpbench.privacy import clipping, dpsgd, mechanisms
from dpbench.privacy.audit import Audit, Mechanism, audit, level_of_each
from dpbench.privacy.audit.canaries import Canaries
from dpbench.privacy.audit.decide import judge
from dpbench.privacy.audit.transcript import CANARIES, OwnReleases, Transcript
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.clipping import Objective, Predict, as_rows, of_examples
from dpbench.privacy.clipping.selection import Executions
from dpbench.privacy.clipping.vmap import clipped_sum
from dpbench.privacy.dpsgd import Learner
from dpbench.privacy.events import DPSGDEvent, Event, GaussianEvent, HistogramEvent
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo
from dpbench.runs.audited import audited_mechanism
from dpbench.runs.request import RunRequest, plan
from dpbench.training.averaging import ExponentialAverage
from dpbench.training.loop import Stage
from tests.support import broken
from tests.support.private import Copies, Gradients, perceptron

BUDGET = PrivacyBudget(10.0)
TRAINING = DPSGDEvent(0.05, 1.5, 0.3, 30, "weights")
SUM = GaussianEvent(8.0, 0.7, "sum")
COUNTS = HistogramEvent(20.0, "counts")
# broken.clipping.divides_by_the_realised_batch expects batches of 1000
INFO = PrivateSetInfo("images", ImageSpec(1, 4, 4), 10, 20_000)


@dataclass(frozen=True)
class Steep:
    """A gradient far longer than the clipping norm."""

    multiplicity: int = 2

    def draw(self, pixels: Tensor, labels: Tensor, rng: torch.Generator) -> Copies:
        return (pixels[:, None].expand(-1, 2, -1, -1, -1).float() / 255,)

    def loss(self, predict: Predict, *copies: Tensor) -> Tensor:
        outputs = of_examples(predict(as_rows(copies[0])), len(copies[0]))
        return 100 * outputs.flatten(1).mean(1)


def fit(private: PrivateImages, training: DPSGDEvent = TRAINING) -> None:
    """A method of three mechanisms."""
    private.label_histogram(COUNTS)
    private.gaussian_sum(lambda part: part.pixels.flatten(1).float().repeat(1, 100), SUM)
    train(private, training)


def train(private: PrivateImages, training: DPSGDEvent = TRAINING) -> None:
    model = perceptron()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    learner = Learner(model, optimizer, ExponentialAverage(model, 0.9))
    private.dp_sgd(learner, Steep(), training, Stage("", Path("unused"), Silent()))


def mechanism(
    method: Callable[[PrivateImages], object] = fit,
    events: tuple[Event, ...] = (COUNTS, SUM, TRAINING),
    executions: Executions | None = None,
    budget: PrivacyBudget = BUDGET,
) -> Mechanism:
    return Mechanism(INFO, budget, events, method, torch.device("cpu"), executions)


def alarms(found: Audit) -> set[str]:
    return {check.name for check in found.alarms}


# Honest mechanisms.


def test_an_honest_mechanism_raises_no_alarm() -> None:
    found = audit(mechanism(), 0, Silent())
    assert alarms(found) == set()
    assert 0.98 < found.sigma_low < 1 < found.sigma_high < 1.02
    assert found.level == level_of_each(3)
    assert found.epsilon_lower < found.epsilon_lower_gdp < found.epsilon == 10
    assert {check.of for check in found.checks} >= {"counts", "sum", "weights"}
    assert "cannot refute epsilon = 10" in found.limits


@pytest.mark.parametrize("engine", ["folded", "vmap", "loop"])
def test_the_audit_goes_by_the_engine_that_trains_the_method(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    executions = Executions(engine)
    claim = mechanism(train, (TRAINING,), executions=executions)
    assert alarms(audit(claim, 0, Silent())) == set()
    original = clipping.engine(engine)

    def twin(m: nn.Module, o: Objective, copies: Copies, c: float) -> Gradients:
        return original(m, o, copies, 2 * c)

    monkeypatch.setattr(f"dpbench.privacy.clipping.{engine}.clipped_sum", twin)
    assert {CLIPPING, OWN_CLIPPING} <= alarms(audit(claim, 0, Silent()))


def check_independent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Audits of two seeds have no draw of noise in common, in any release or tensor."""
    spare: list[dict[str, np.ndarray]] = []

    def watched(
        transcripts: list[Transcript], members: object, own: OwnReleases, *rest: Any
    ) -> Any:
        # directions that belong to no canary show noise alone
        seen = {each.event.purpose: each.released[:, CANARIES:] for each in transcripts}
        spare.append(seen | {each.tensor: np.array(each.sum_squares) for each in own.noise})
        return judge(transcripts, members, own, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(auditing, "judge", watched)
    found = [audit(mechanism(), seed, Silent()) for seed in (0, 1)]
    assert found[0].sigma_low != found[1].sigma_low
    first, second = spare
    assert len(first) == 3 + 6  # releases of canaries, and the method's own tensors
    shared = [name for name in first if np.any(first[name] == second[name])]
    assert not shared, f"two audits share the noise of {shared}"


def test_an_audit_repeats_itself() -> None:
    assert audit(mechanism(), 0, Silent()) == audit(mechanism(), 0, Silent())


def test_audits_of_other_seeds_share_no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    check_independent(monkeypatch)


@pytest.mark.parametrize("purpose", ["counts", "sum", "weights"])
def test_the_comparison_catches_audits_that_share_the_noise_of_a_release(
    purpose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OneShared(Streams):
        def secret(self, name: str, *path: object) -> np.random.Generator:
            shared = name == "dp-noise" and path[0] == purpose
            streams = Streams(0, reproducible_key(0)) if shared else super()
            return streams.secret(name, *path)

    monkeypatch.setattr(auditing, "Streams", OneShared)
    with pytest.raises(AssertionError, match=f"share the noise of .*{purpose}"):
        check_independent(monkeypatch)


def test_an_alarm_counts_only_if_a_second_audit_repeats_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Notes(Silent):
        said: ClassVar[list[str]] = []

        def note(self, text: str) -> None:
            self.said.append(text)

    by_chance = 2  # a seed of which the first audit of an honest mechanism raises an alarm
    assert alarms(audit(mechanism(), by_chance, Notes())) == set()
    assert ["auditing again" in text for text in Notes.said] == [True]
    monkeypatch.setattr(dpsgd, "gaussian_noise", broken.noise.scaled_by(0.97))
    assert SIGMA in alarms(audit(mechanism(), by_chance, Silent()))


@pytest.mark.slow
def test_the_laptop_plan_of_a_real_method_is_audited_without_an_alarm() -> None:
    planned = plan(RunRequest("dpsyngen", "fashionmnist", 1.0, device="cpu"))
    found = audit(audited_mechanism(planned, planned.plan.events, Executions()), 0, Silent())
    assert alarms(found) == set()
    # a histogram of ten classes has too few values for 1%
    training = next(each for each in found.checks if each.of == "denoiser weights")
    assert 0.99 < training.low < 1 < training.high < 1.01
    # every tensor of the method's network was looked at, and its image was really clipped
    assert found.checks[-2].low == pytest.approx(1, abs=1e-3)


# Broken mechanisms, and which check sees them.


def every_engine(twin: Callable[..., Gradients]) -> Callable[[str], Callable[..., Gradients]]:
    """In the place of ``dpsgd.engine``: the twin, whatever engine is asked for."""
    return lambda name: twin


def only_on_real_networks(engine: Callable[..., Gradients]) -> Callable[..., Gradients]:
    def twin(m: nn.Module, o: Objective, copies: Copies, c: float) -> Gradients:
        return (clipped_sum if isinstance(m, Canaries) else engine)(m, o, copies, c)

    return twin


SIGMA, SUMMED, TAIL = (
    "sigma ratio",
    "sigma ratio, summed over steps",
    "share of noise beyond 2 sigma",
)
SIGNAL, SPREAD, CLIPPING = "mean signal over qT", "spread of batch sizes", "clipping error"
OWN_SIGMA, OWN_CLIPPING = "sigma ratio, method's own tensor", "most that one image adds, over C"
BROKEN = {
    "noise x 0.97": (dpsgd, "gaussian_noise", broken.noise.scaled_by(0.97), SIGMA),
    "noise x 0.1": (dpsgd, "gaussian_noise", broken.noise.scaled_by(0.1), SIGMA),
    "no noise": (dpsgd, "gaussian_noise", broken.noise.scaled_by(0.0), SIGMA),
    "noise without the clipping norm": (
        *(dpsgd, "gaussian_noise"),
        broken.noise.scaled_by(1 / TRAINING.clipping_norm),
        SIGMA,
    ),
    "noise missing on one tensor": (
        dpsgd,
        "gaussian_noise",
        broken.noise.missing_on("second.weight"),
        SIGMA,
    ),
    "noise missing on one real tensor": (
        *(dpsgd, "gaussian_noise"),
        broken.noise.missing_on("1.bias"),
        OWN_SIGMA,
    ),
    "noise reused at every step": (
        dpsgd,
        "gaussian_noise",
        broken.noise.the_same_at_every_step,
        SUMMED,
    ),
    "noise reused on every tensor": (
        *(dpsgd, "gaussian_noise"),
        broken.noise.the_same_on_every_tensor,
        SIGMA,
    ),
    "noise at every other step": (dpsgd, "gaussian_noise", broken.noise.at_every_other_step, TAIL),
    "uniform noise": (dpsgd, "gaussian_noise", broken.noise.uniform, TAIL),
    "noise x 0.97 in one-shot sums too": (auditing, "Streams", broken.noise.QuieterDPNoise, SIGMA),
    "no clipping": (dpsgd, "engine", every_engine(broken.clipping.never_clips), CLIPPING),
    "no clipping of real networks": (
        *(dpsgd, "engine"),
        every_engine(only_on_real_networks(broken.clipping.never_clips)),
        OWN_CLIPPING,
    ),
    "each tensor of real networks clipped": (
        *(dpsgd, "engine"),
        every_engine(only_on_real_networks(broken.clipping.clips_each_tensor)),
        OWN_CLIPPING,
    ),
    "no clipping of one-shot sums": (
        *(mechanisms, "clip_factors"),
        lambda norms, c: torch.ones_like(norms),
        CLIPPING,
    ),
    "each copy clipped": (dpsgd, "engine", every_engine(broken.clipping.clips_each_copy), SIGNAL),
    "each copy clipped and added": (
        *(dpsgd, "engine"),
        every_engine(broken.clipping.clips_each_copy_without_mean),
        SIGNAL,
    ),
    "each tensor clipped": (
        dpsgd,
        "engine",
        every_engine(broken.clipping.clips_each_tensor),
        CLIPPING,
    ),
    "the batch clipped": (dpsgd, "engine", every_engine(broken.clipping.clips_the_batch), CLIPPING),
    "physical batches averaged": (
        dpsgd,
        "engine",
        every_engine(broken.clipping.averages),
        CLIPPING,
    ),
    "divided by the realised batch": (
        *(dpsgd, "gradient_sum"),
        broken.clipping.divides_by_the_realised_batch,
        CLIPPING,
    ),
    "shuffled": (dpsgd, "poisson_sample", broken.sampling.shuffles, SPREAD),
    "neighbours together": (
        dpsgd,
        "poisson_sample",
        broken.sampling.takes_neighbours_together,
        SPREAD,
    ),
    "the first batch again": (
        *(dpsgd, "poisson_sample"),
        broken.sampling.takes_the_first_batch_again,
        SPREAD,
    ),
    "twice the sample rate": (
        mechanisms,
        "train",
        broken.training.samples_at_twice_the_rate,
        SIGNAL,
    ),
    "a tenth less noise": (mechanisms, "train", broken.training.adds_a_tenth_less_noise, SIGMA),
    "twice the clipping norm": (
        mechanisms,
        "train",
        broken.training.clips_at_twice_the_norm,
        CLIPPING,
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_audit_catches(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, attribute, twin, check = BROKEN[name]
    monkeypatch.setattr(module, attribute, twin)
    found = audit(mechanism(), 0, Silent())
    assert check in alarms(found), found.checks


def test_guesses_refute_a_small_epsilon(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = mechanism(train, (TRAINING,), budget=PrivacyBudget(1.0))
    assert alarms(audit(claim, 0, Silent())) == set()
    monkeypatch.setattr(dpsgd, "gaussian_noise", broken.noise.scaled_by(0.0))
    found = audit(claim, 0, Silent())
    assert found.epsilon_lower > 2
    assert "epsilon" in alarms(found)


@pytest.mark.parametrize(
    ("attribute", "twin"),
    [
        ("gaussian_noise", broken.noise.from_the_public_seed),
        ("gaussian_noise", broken.noise.the_same_for_every_purpose),
        ("poisson_sample", broken.sampling.favours_some),
        ("engine", every_engine(broken.clipping.lets_nan_through)),
        ("engine", every_engine(broken.clipping.takes_norms_in_bfloat16)),
    ],
)
def test_an_audit_does_not_see(
    attribute: str, twin: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blind spots, written down: other tests catch these (streams, sampling, neighbours)."""
    monkeypatch.setattr(dpsgd, attribute, twin)
    assert alarms(audit(mechanism(), 0, Silent())) == set()


def test_one_step_more_than_claimed_ends_the_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mechanisms, "train", broken.training.makes_one_step_more)
    with pytest.raises(RunFailed, match="31 releases were made but 30 are claimed"):
        audit(mechanism(), 0, Silent())


def test_a_method_that_spends_something_else_than_it_claims_ends_the_audit() -> None:
    def less_noise(private: PrivateImages) -> None:
        fit(private, replace(TRAINING, noise_multiplier=1.0))

    with pytest.raises(RunFailed, match="the method spends"):
        audit(mechanism(less_noise), 0, Silent())


def test_a_method_that_reads_the_images_under_a_budget_ends_the_audit() -> None:
    with pytest.raises(UserError, match="run it with --eps inf"):
        audit(mechanism(lambda private: private.unprotected()), 0, Silent())


def test_events_that_cost_more_than_is_claimed_end_the_audit() -> None:
    with pytest.raises(UserError, match="over the budget of 0.1"):
        audit(mechanism(budget=PrivacyBudget(0.1)), 0, Silent())


def test_noise_that_is_not_finite_ends_the_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dpsgd, "gaussian_noise", broken.noise.scaled_by(math.nan))
    with pytest.raises(RunFailed, match="not finite"):
        audit(mechanism(), 0, Silent())


@pytest.mark.parametrize(
    ("budget", "events", "message"),
    [(PrivacyBudget(math.inf), (TRAINING,), "no privacy claim"), (BUDGET, (), "nothing to audit")],
)
def test_without_a_claim_there_is_nothing_to_audit(
    budget: PrivacyBudget, events: tuple[Event, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        audit(mechanism(events=events, budget=budget), 0, Silent())
