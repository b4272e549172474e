"""Neighbour replay: what it measures, what it catches, and that every method passes it."""

from __future__ import annotations

import json
import math
from types import ModuleType

import pytest
import torch

from dpbench.api.method import RunContext
from dpbench.core.errors import RunFailed
from dpbench.core.images import Images
from dpbench.core.progress import Silent
from dpbench.core.registry import entries, load
from dpbench.data.catalog import CATALOG
from dpbench.data.load import load as load_dataset
from dpbench.privacy.mechanisms import PrivateImages
from dpbench.privacy.replay.handle import Comparison
from dpbench.privacy.replay.neighbours import Neighbour, neighbours
from dpbench.runs.check import replay
from dpbench.runs.hyperparameters import resolve
from dpbench.runs.request import private_set_info
from tests.support.checks.replay import failures, replayed
from tests.support.command import Command
from tests.support.methods import CHEATS, SUM, TRAINING, Honest, stolen


def test_an_honest_method_passes_and_its_neighbours_make_a_difference() -> None:
    comparisons = replayed(Honest())
    assert failures(comparisons) == set()
    releases = [each for each in comparisons if each.release is not None]
    assert len(releases) == 8 * (1 + TRAINING.steps)
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


class Told:
    """A classifier that keeps from its checkpoint what it predicts by."""

    def __init__(self, leak: torch.Tensor) -> None:
        self.leak = leak

    def __getstate__(self) -> dict[str, object]:
        return {"checkpoint": "tells nothing"}

    def predict(self, images: torch.Tensor) -> torch.Tensor:
        return self.leak.expand(len(images), 3)


def test_a_classifier_whose_predictions_tell_more_than_its_checkpoint_is_caught() -> None:
    class Classifies(Honest):
        def fit(self, private: PrivateImages, run: RunContext) -> Told:  # type: ignore[override]
            leak = stolen(private).pixels.float().mean() if self.leaks else torch.zeros(())
            self.learn(private, run, self.features, self.objective())
            return Told(leak)

        leaks = True

    class Keeps(Classifies):
        leaks = False

    assert failures(replayed(Classifies(), "white added")) == {"predictions"}
    assert failures(replayed(Keeps(), "white added")) == set()


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


# Removes an image, adds the longest and the most uneven gradient, and those without a length. All
# eight neighbours are tried on the honest method above, and by `dpbench check`.
NEIGHBOURS = ("one removed", "white added", "checkerboard added", "NaN added", "overflow added")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *((name, ()) for name in sorted(entries("method")) if load("method", name).private),
        ("dp-ddpm", ("public=salt-and-pepper", "flip=True", "crop=1")),
        ("dpdm", ("centre_learning_rate=0.004", "centre_widths=True")),
    ],
)
def test_every_private_method_learns_through_its_mechanisms_alone(
    name: str, settings: tuple[str, ...]
) -> None:
    method = resolve(load("method", name), name, "smoke", "digits", 1.0, settings).method
    original, *others = neighbours(load_dataset("digits", None, Silent()).splits.train)
    chosen: list[Neighbour] = [each for each in others if each.name in NEIGHBOURS]
    assert len(chosen) == len(NEIGHBOURS)
    comparisons = replay(method, private_set_info(CATALOG["digits"]), [original, *chosen], Silent())
    assert failures(comparisons) == set()
    moved = [each.difference for each in comparisons if each.release is not None]
    assert len(moved) >= len(chosen) and max(moved) > 0


# The command.


def test_the_command_shows_the_worst_release_for_each_neighbour(
    dpbench: Command, toy: ModuleType
) -> None:
    ended = dpbench("check", "toy")
    assert ended.code == 0
    assert ended.out.count("mean image") == 8
    assert " of 4 " in ended.out
    assert "not a proof" in ended.out
    assert "replaying: 9/9 fits" in ended.err


def test_the_command_writes_json_and_nothing_else(dpbench: Command, toy: ModuleType) -> None:
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
    dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    honest = toy.Toy.fit

    def fit(self: object, private: PrivateImages, run: object) -> object:
        honest(self, private, run)
        return toy.ToySampler(stolen(private).pixels.float().mean(dim=0) / 255)

    monkeypatch.setattr(toy.Toy, "fit", fit)
    ended = dpbench("check", "toy", *options)
    assert ended.code == 1
    assert "toy failed 16 of " in ended.err and ended.err.count("\n") == 2
    if options:
        assert json.loads(ended.out)["ok"] is False
    else:
        assert ended.out.count("NO") == 16


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
