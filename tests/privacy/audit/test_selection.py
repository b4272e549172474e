from __future__ import annotations

import pytest
import torch

from dpbench.core.errors import RunFailed, UserError
from dpbench.core.images import ImageSpec
from dpbench.core.progress import Silent
from dpbench.privacy.audit import Audit, Mechanism, audit
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.events import Event, HistogramEvent, SelectionEvent
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo

CHOICE = SelectionEvent(40.0, "best")
COUNTS = HistogramEvent(20.0, "counts")
INFO = PrivateSetInfo("images", ImageSpec(1, 4, 4), 10, 20_000)


def choosing(private: PrivateImages) -> None:
    private.select((0, 1), lambda label, part: part.labels == label, CHOICE)
    private.label_histogram(COUNTS)


def audited(*events: Event) -> Audit:
    claim = Mechanism(INFO, PrivacyBudget(10.0), events, choosing, torch.device("cpu"))
    return audit(claim, 0, Silent())


def test_a_selection_is_left_out_of_the_audit_which_says_so() -> None:
    found = audited(CHOICE, COUNTS)
    assert not found.alarms and "The selection 'best' was left out" in found.limits
    assert "counts" in {check.of for check in found.checks}


def test_a_selection_that_is_not_claimed_is_other_than_claimed() -> None:
    with pytest.raises(RunFailed, match="the claim rests on"):
        audited(COUNTS)


def test_a_selection_alone_is_not_audited() -> None:
    with pytest.raises(UserError, match="the method only selects"):
        audited(CHOICE)
