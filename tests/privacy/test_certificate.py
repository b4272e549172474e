"""What a certificate may say: its parts, their types and ranges."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dpbench.privacy import ledger
from dpbench.privacy.budget import Adjacency, PrivacyBudget
from dpbench.privacy.certificate import (
    Certificate,
    Tuning,
    certificate_violations,
    certify,
    events_of,
)
from dpbench.privacy.events import DPSGDEvent, GaussianEvent, HistogramEvent, SelectionEvent
from dpbench.privacy.gaussian_dp import EXACT, gaussian_dp
from dpbench.privacy.ledger import PrivacyLedger

CODE = {"package": "dpbench-images 0", "git_revision": None}
TUNING = Tuning(
    preset="Doe 2026, table 2", from_preset=["steps"], by_hand=["channels"], accounted=False
)


def several_mechanisms() -> PrivacyLedger:
    spent = PrivacyLedger(PrivacyBudget(10.0))
    spent.spend(HistogramEvent(5.0, "sizes")).release(0)
    spent.spend(GaussianEvent(4.0, 0.5, "sum")).release(0)
    training = spent.spend(DPSGDEvent(0.1, 2.0, 1.0, 3, "weights"))
    for step in range(3):
        training.release(step)
    spent.spend(SelectionEvent(3.0, "choice")).release(0)
    return spent


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return certify(several_mechanisms(), False, CODE, 60_000, TUNING)


def test_a_certificate_of_every_mechanism_is_as_its_model_says(made: dict[str, Any]) -> None:
    assert certificate_violations(made) == []
    kinds = [each["mechanism"] for each in made["events"]]
    assert kinds == ["label_histogram", "gaussian", "dp_sgd", "selection"]
    assert events_of(made) == several_mechanisms().events
    assert [each["released"] for each in made["events"]] == [1, 1, 3, 1]


@pytest.mark.parametrize(
    ("adjacency", "words"), [("add_remove", "added or removed"), ("replace_one", "replaced by")]
)
def test_the_adjacency_says_what_it_means(adjacency: Adjacency, words: str) -> None:
    ledger = PrivacyLedger(PrivacyBudget(1.0, adjacency=adjacency))
    ledger.spend(GaussianEvent(20.0, 1.0, "sum")).release(0)
    certificate = certify(ledger, False, CODE, 60_000, TUNING)
    assert f"one image with its label is {words}" in certificate["neighbours"]
    assert "the declared number of 60,000 images is public" in certificate["neighbours"]
    change = 2 if adjacency == "replace_one" else 1
    assert certificate["gaussian_dp"]["mu"] == pytest.approx(change / 20)


def test_mu_stands_beside_epsilon_and_tuning_is_not_accounted(made: dict[str, Any]) -> None:
    bound = gaussian_dp(several_mechanisms().events, "add_remove", made["epsilon"])
    assert made["gaussian_dp"] == vars(bound)
    assert made["tuning"] == {
        "preset": "Doe 2026, table 2",
        "from_preset": ["steps"],
        "by_hand": ["channels"],
        "accounted": False,
    }
    unlimited = PrivacyLedger(PrivacyBudget(math.inf))
    assert certify(unlimited, False, CODE, 5, TUNING)["gaussian_dp"] is None


def test_no_part_may_be_missing_and_none_invented(made: dict[str, Any]) -> None:
    assert certificate_violations({**made, "invented": 1}) == ["privacy.invented is unknown"]
    for name in made:
        left = {k: v for k, v in made.items() if k != name}
        assert certificate_violations(left) == [f"privacy.{name} is missing"]
    for i, each in enumerate(made["events"]):
        for name in each:
            events = [dict(other) for other in made["events"]]
            del events[i][name]
            (line,) = certificate_violations({**made, "events": events})
            assert line.startswith(f"privacy.events.{i}") and name in line


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("certificate_version", 4),
        ("certificate_version", "3"),
        ("epsilon", -1.0),
        ("epsilon", math.nan),
        ("epsilon", "infinity"),
        ("epsilon", True),
        ("delta", 0.0),
        ("delta", 1.0),
        ("delta", "1e-5"),
        ("adjacency", "unknown"),
        ("unit", "one pixel"),
        ("accountant", ""),
        ("accountant", 1),
        ("release", "valid "),
        ("not_covered", []),
        ("not_covered", [""]),
        ("not_covered", "nothing"),
        ("declared_size", 0),
        ("neighbours", ""),
        ("gaussian_dp", {"mu": -1.0, "up_to_epsilon": 1.0, "direction": EXACT}),
        ("gaussian_dp", {"mu": 1.0, "up_to_epsilon": 1.0, "direction": "roughly"}),
        ("tuning", {**TUNING.model_dump(), "accounted": True}),
        ("cross_checks", [{"accountant": "mine", "epsilon": "1", "reason": ""}]),
        ("code", {"package": "dpbench-images 0"}),
    ],
)
def test_a_part_of_another_type_or_range_is_named(
    made: dict[str, Any], part: str, value: object
) -> None:
    (line,) = certificate_violations({**made, part: value})
    assert line.startswith(f"privacy.{part}") and "\n" not in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sample_rate", 0.0),
        ("sample_rate", 1.5),
        ("noise_multiplier", -1.0),
        ("noise_multiplier", "2.0"),
        ("noise_multiplier", math.inf),
        ("clipping_norm", 0.0),
        ("clipping_norm", True),
        ("steps", 0),
        ("steps", 3.0),
        ("steps", True),
        ("purpose", ""),
        ("purpose", None),
    ],
)
def test_an_event_and_a_certificate_refuse_the_same_parameters(
    made: dict[str, Any], name: str, value: object
) -> None:
    parameters = dict(made["events"][2], **{name: value})
    (line,) = certificate_violations({**made, "events": [parameters]})
    assert line.startswith(f"privacy.events.0.dp_sgd.{name} should ")
    del parameters["mechanism"], parameters["released"]
    with pytest.raises(ValueError, match=f"^{name} should ") as refused:
        DPSGDEvent(**parameters)
    assert "\n" not in str(refused.value)


def test_infinity_has_one_form(made: dict[str, Any]) -> None:
    for infinity in (math.inf, "inf"):
        assert certificate_violations({**made, "epsilon": infinity}) == []


def test_the_model_follows_the_ledger() -> None:
    parts = Certificate.model_json_schema()["properties"]
    assert parts["certificate_version"]["const"] == ledger.CERTIFICATE_VERSION
    assert parts["unit"]["const"] == ledger.UNIT
    assert set(parts["release"]["enum"]) == {ledger.VALID, ledger.VOID, ledger.NOT_PRIVATE}
