"""Noise whose tail is cut off: its variance is as claimed, and the claim is void."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dpbench.core.images import ImageSpec
from dpbench.core.progress import Silent
from dpbench.privacy import dpsgd
from dpbench.privacy.audit import Mechanism, audit
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.dpsgd import Learner
from dpbench.privacy.events import DPSGDEvent
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo
from dpbench.training.averaging import ExponentialAverage
from dpbench.training.loop import Stage
from tests.support import broken
from tests.support.private import Layers, Nothing

TRAINING = DPSGDEvent(0.05, 1.5, 0.3, 30, "weights")
INFO = PrivateSetInfo("images", ImageSpec(1, 4, 4), 10, 20_000)


def fit(private: PrivateImages) -> None:
    """Private training of 220,000 weights."""
    model = Layers()
    learner = Learner(
        model, torch.optim.SGD(model.parameters(), lr=0.1), ExponentialAverage(model, 0.9)
    )
    private.dp_sgd(learner, Nothing(), TRAINING, Stage("", Path("unused"), Silent()))


def alarms() -> set[str]:
    claim = Mechanism(INFO, PrivacyBudget(10.0), (TRAINING,), fit, torch.device("cpu"))
    return {check.name for check in audit(claim, 0, Silent()).alarms}


def test_an_audit_catches_noise_that_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert alarms() == set()
    monkeypatch.setattr(dpsgd, "gaussian_noise", broken.noise.cut_at(4.0))
    assert alarms() == {"largest noise"}
