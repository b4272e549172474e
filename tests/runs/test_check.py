"""Neighbour replay: what it measures, what it catches, and that every method passes it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from types import ModuleType

import numpy as np
import pytest
import torch

from dpbench.api.method import RunContext
from dpbench.core.errors import RunFailed
from dpbench.core.images import Images
from dpbench.core.progress import Silent
from dpbench.core.registry import entries, load
from dpbench.core.state import State
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo
from dpbench.privacy.replay.handle import Comparison
from dpbench.privacy.replay.neighbours import RESUMED, Neighbour, neighbours
from dpbench.runs import check as checking
from dpbench.runs.check import replay
from dpbench.runs.execute import open_images
from dpbench.runs.replayed_fit import Subject
from dpbench.runs.request import RunRequest, plan
from tests.support.checks.replay import failures, replayed
from tests.support.command import Command
from tests.support.methods import CHEATS, SUM, TRAINING, Fixed, Honest, stolen


def test_an_honest_method_passes_and_its_neighbours_make_a_difference() -> None:
    comparisons = replayed(Honest())
    assert failures(comparisons) == set()
    releases = [each for each in comparisons if each.release is not None]
    # those on the other sets are not compared
    assert len(releases) == 8 * (1 + TRAINING.steps)
    assert {each.neighbour for each in comparisons} >= {"D", RESUMED, "only strangers", "nobody"}
    assert [each.release for each in releases[:4]] == [0, 1, 2, 3]
    for event in (SUM, TRAINING):
        own = {each.neighbour: each for each in releases if each.purpose == event.purpose}
        assert {each.sensitivity for each in own.values()} == {event.clipping_norm}
        # the strongest reach what they are allowed, so the bound is tight
        assert own["white added"].difference == pytest.approx(event.clipping_norm, rel=1e-3)
        assert own["last removed"].difference > 0.2 * event.clipping_norm
        # what has no length counts for nothing
        for name in ("NaN added", "overflow added"):
            assert own[name].difference == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.__name__)
def test_a_method_that_reads_images_outside_of_a_mechanism_is_caught(cheat: type[Honest]) -> None:
    found = failures(replayed(cheat(), "one removed", "white added"))
    assert CHEATS[cheat] in found


@dataclass
class Told:
    """A classifier that keeps from its state what it predicts by."""

    leak: torch.Tensor

    def state(self) -> State:
        return {"state": "tells nothing"}

    def predict(self, images: torch.Tensor) -> torch.Tensor:
        return self.leak.expand(len(images), 3)


class Classifies(Honest):
    """Keeps in its class what it predicts by."""

    leaks = True
    learned: Told

    def fit(self, private: PrivateImages, run: RunContext) -> Told:  # type: ignore[override]
        leak = stolen(private).pixels.float().mean() if self.leaks else torch.zeros(())
        self.learn(private, run, self.features, self.objective())
        type(self).learned = Told(leak)
        return self.learned

    def restore(  # type: ignore[override]
        self, state: State, info: PrivateSetInfo, device: torch.device
    ) -> Told:
        return self.learned


def test_a_classifier_whose_predictions_tell_more_than_its_checkpoint_is_caught() -> None:
    class Keeps(Classifies):
        leaks = False

    assert failures(replayed(Classifies(), "white added")) == {"predictions"}
    assert failures(replayed(Keeps(), "white added")) == set()


# What is stored.


class Kept(Fixed):
    """A sampler whose state holds whatever a test puts there."""

    more: object = None

    def state(self) -> State:
        return {"numbers": self.numbers, "more": self.more}


class Stores(Honest):
    """Draws from the numbers of its state alone."""

    def fit(self, private: PrivateImages, run: RunContext) -> Fixed:
        sampler = Kept(super().fit(private, run).numbers)
        Kept.more = self.more(private)
        return sampler

    def more(self, private: PrivateImages) -> object:
        return [True, None, ("text", 1.5)]

    def restore(self, state: State, info: PrivateSetInfo, device: torch.device) -> Fixed:
        return Fixed(state["numbers"])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (lambda private: private, "state['more'] is of type ReplayedImages"),
        (lambda private: [lambda: 0], "state['more'][0] is of type function"),
        (lambda private: {"model": torch.nn.Linear(1, 1)}, "['model'] is of type Linear"),
        (lambda private: np.float64(1.0), "state['more'] is of type float64"),
        (lambda private: {1: 1}, "state['more'] has 1 among its names, which is no text"),
    ],
)
def test_a_sampler_that_cannot_be_stored_is_refused_with_what_is_wrong(
    more: Callable[[PrivateImages], object], said: str
) -> None:
    assert failures(replayed(Stores(), "white added")) == set()
    method = type("", (Stores,), {"more": lambda self, private: more(private)})()
    with pytest.raises(RunFailed, match=re.escape(said)) as refused:
        replayed(method, "white added")
    assert "Kept, which fit returned, cannot be stored: " in str(refused.value)


def test_a_sampler_without_state_is_refused() -> None:
    class Stateless(Stores):
        def fit(self, private: PrivateImages, run: RunContext) -> Fixed:
            super().fit(private, run)
            return object()  # type: ignore[return-value]

    with pytest.raises(RunFailed, match=r"object, which fit returned, has no method state\(\)"):
        replayed(Stateless(), "white added")


@pytest.mark.parametrize(
    ("factor", "said"),
    [(0.0, "it gives other samples, so the state leaves something out"), (None, "TypeError")],
)
def test_a_sampler_that_is_not_rebuilt_is_refused(factor: float | None, said: str) -> None:
    class Forgets(Stores):
        def restore(self, state: State, info: PrivateSetInfo, device: torch.device) -> Fixed:
            return Fixed(state["numbers"] * factor)

    with pytest.raises(RunFailed, match=said):
        replayed(Forgets(), "white added")


def test_a_method_that_breaks_by_itself_is_said_to() -> None:
    class Broken(Honest):
        def features(self, images: Images) -> torch.Tensor:
            raise ZeroDivisionError("of its own")

    with pytest.raises(RunFailed, match="ZeroDivisionError: of its own"):
        replayed(Broken())


def test_a_release_that_is_not_a_number_is_infinitely_far() -> None:
    assert Comparison(0, "sum", "white added", 1.0, 1.0).ok
    assert not Comparison(0, "sum", "white added", 1.01, 1.0).ok
    assert not Comparison(None, "checkpoint", "white added", math.inf, 0.0).ok


# Every method.


# All neighbours are tried on the honest method above, and by `dpbench check`.
SETS = ("D", RESUMED, "one removed", "white added", "only strangers", "nobody")


@pytest.fixture
def few_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command take a moment."""

    def few(images: Images) -> list[Neighbour]:
        return [each for each in neighbours(images[:100]) if each.name in SETS]

    monkeypatch.setattr(checking, "neighbours", few)


# As little as has all that a fit does: a step before the interruption, and two after it.
FEW = {
    **dict.fromkeys(("steps", "warmup_steps", "synthetic_steps", "public_steps"), 3),
    **dict.fromkeys(("synthetic_images", "public_images"), 32),
    **{"public_warmup_steps": 1, "generator_steps": 3, "frequencies": 36, "rank": 8},
    "labeller_steps": 3,
}
STATISTICS = (
    "synthetic=class-recipes",
    "synthetic_labels=recipe",
    "statistics_share=0.3",
    "synthetic_classes=4",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *((name, ()) for name in sorted(entries("method")) if load("method", name).private),
        ("dp-ddpm", ("public=salt-and-pepper", "flip=True", "crop=1")),
        ("dpdm", ("centre_learning_rate=0.004", "centre_widths=True", "natural_spectrum=2")),
        ("dpsyngen", (*STATISTICS, "natural_spectrum=2")),
        ("dp-ddpm", ("public=class-recipes", "statistics_share=0.3", "public_classes=4")),
    ],
)
def test_every_private_method_learns_through_its_mechanisms_alone(
    name: str, settings: tuple[str, ...]
) -> None:
    known = {each.name for each in fields(load("method", name))}
    few = tuple(f"{each}={value}" for each, value in FEW.items() if each in known)
    request = RunRequest(name, "digits", profile="smoke", settings=settings + few, device="cpu")
    planned = plan(request)
    dataset, public = open_images(planned, None, Silent())
    subject = replace(Subject.of(planned, public, None), engine=None)
    sets = [each for each in neighbours(dataset.splits.train) if each.name in SETS]
    comparisons = replay(subject, sets, Silent())
    assert failures(comparisons) == set()
    moved = [each.difference for each in comparisons if each.release is not None]
    assert len(moved) >= 2 and max(moved) > 0


# The command.


def test_the_command_shows_the_worst_release_for_each_neighbour(
    dpbench: Command, toy: ModuleType, few_sets: None
) -> None:
    ended = dpbench("check", "toy")
    assert ended.code == 0
    assert ended.out.count("mean image") == 2
    assert " of 4 " in ended.out
    assert "not a proof" in ended.out
    assert "replaying: 6/6 fits" in ended.err


def test_the_command_writes_json_and_nothing_else(
    dpbench: Command, toy: ModuleType, few_sets: None
) -> None:
    ended = dpbench("check", "toy", "--dataset", "digits", "--json")
    found = json.loads(ended.out)
    assert (ended.code, found["ok"], found["method"], found["dataset"]) == (
        0,
        True,
        "toy",
        "digits",
    )
    first = found["comparisons"][0]
    assert list(first) == ["release", "purpose", "neighbour", "difference", "sensitivity", "ok"]
    assert found["not_shown"]


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_the_command_fails_a_third_partys_method_that_cheats(
    dpbench: Command,
    toy: ModuleType,
    few_sets: None,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
) -> None:
    honest = toy.Toy.fit

    def fit(self: object, private: PrivateImages, run: object) -> object:
        honest(self, private, run)
        return toy.ToySampler(stolen(private).pixels.float().mean(dim=0) / 255)

    monkeypatch.setattr(toy.Toy, "fit", fit)
    ended = dpbench("check", "toy", *options)
    assert ended.code == 1
    assert "toy failed 8 of " in ended.err and ended.err.count("\n") == 2
    if options:
        assert json.loads(ended.out)["ok"] is False
    else:
        assert ended.out.count("NO") == 8


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("dpsyn",), "Unknown method 'dpsyn'. Did you mean 'dpsyngen'?"),
        (("toy", "--dataset", "digit"), "Unknown dataset 'digit'. Did you mean 'digits'?"),
        (("real",), "real is not private: it reads the images themselves"),
        ((), "Missing argument"),
    ],
)
def test_a_mistake_is_one_line(
    dpbench: Command, toy: ModuleType, arguments: tuple[str, ...], message: str
) -> None:
    ended = dpbench("check", *arguments)
    assert ended.code == 2
    assert message in ended.err and "Traceback" not in ended.err
