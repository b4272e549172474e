"""How often audits of simulated mechanisms raise an alarm."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dpbench.privacy.audit import Audit, level_of_each
from dpbench.privacy.audit.canaries import rows_of
from dpbench.privacy.audit.decide import judge
from dpbench.privacy.audit.transcript import CANARIES, Audited, OwnNoise, OwnReleases, Transcript
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.epsilon import epsilon
from dpbench.privacy.events import DPSGDEvent, GaussianEvent

SUM = GaussianEvent(8.0, 0.7, "sum")
TRAINING = DPSGDEvent(0.05, 1.5, 0.3, 30, "weights")


def simulated(
    event: Audited, members: np.ndarray, rng: np.random.Generator, scale: float = 1.0
) -> Transcript:
    """What an honest mechanism releases, drawn from its definition."""
    rate = event.sample_rate if isinstance(event, DPSGDEvent) else 1.0
    rows = rows_of(event)
    contributed = np.zeros((event.steps, rows), np.float32)
    contributed[:, :CANARIES] = (rng.random((event.steps, CANARIES)) < rate) & members
    noise = rng.standard_normal((event.steps, rows), np.float32)
    return Transcript(event, contributed + scale * event.noise_multiplier * noise, contributed)


def simulated_audits(events: tuple[Audited, ...], count: int, scale: float = 1.0) -> list[Audit]:
    budget = PrivacyBudget(epsilon(events, 1e-5))
    found = []
    for seed in range(count):
        rng = np.random.default_rng([7, seed])
        members = rng.random(CANARIES) < 0.5
        sizes = (16, 300, 5000)
        drawn = {str(n): scale * rng.standard_normal(4 * n) for n in sizes}
        own = [
            OwnNoise(name, float(each @ each), each.size, float(np.abs(each).max()))
            for name, each in drawn.items()
        ]
        transcripts = [simulated(event, members, rng, scale) for event in events]
        releases = OwnReleases(tuple(own), (1.0,))
        level = level_of_each(len(events))
        found.append(judge(transcripts, members, releases, budget, level, rng))
    return found


LAPTOP = DPSGDEvent(1024 / 60_000, 1.0823, 0.5, 100, "weights")


def test_simulated_audits_catch_what_is_3_percent_off() -> None:
    assert all(found.alarms for found in simulated_audits((LAPTOP,), 20, scale=0.97))
    assert all(found.alarms for found in simulated_audits((SUM,), 20, scale=0.97))


@pytest.mark.slow
@pytest.mark.parametrize("events", [(LAPTOP,), (SUM,), (SUM, TRAINING)], ids=["sgd", "sum", "both"])
def test_one_honest_audit_raises_alarms_in_no_more_than_5_percent(
    events: tuple[Audited, ...],
) -> None:
    found = simulated_audits(events, 500)
    alarmed = sum(bool(each.alarms) for each in found)
    assert stats.binomtest(alarmed, 500, 0.05, "greater").pvalue > 0.01, alarmed
    # nor is it so quiet that it could not speak
    assert alarmed > 2, alarmed
