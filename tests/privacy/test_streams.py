from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dpbench.core.errors import UserError
from dpbench.core.streams import (
    KEY_BYTES,
    PUBLIC_STREAMS,
    SECRET_STREAMS,
    Streams,
    new_key,
    reproducible_key,
)
from dpbench.privacy import dpsgd, mechanisms
from dpbench.privacy.clipping import ENGINES, Predict, check_model
from dpbench.privacy.events import DPSGDEvent
from tests.support import broken
from tests.support.checks import Detected, expect_refused
from tests.support.private import KEY, Coordinates, Copies, Steps, flat, some_images


def secret(streams: Streams, *path: object) -> np.ndarray:
    return streams.secret("dp-noise", *path).standard_normal(8)


def flipped(key: bytes, bit: int) -> bytes:
    return (int.from_bytes(key, "big") ^ (1 << bit)).to_bytes(KEY_BYTES, "big")


def check_keyed(kind: type[Streams]) -> None:
    """Secret draws depend on every bit of the key, and on nothing that is published."""
    honest = secret(kind(0, KEY), "weights", 0)
    assert np.array_equal(honest, secret(kind(1, KEY), "weights", 0))
    for bit in range(8 * KEY_BYTES):
        assert not np.array_equal(honest, secret(kind(0, flipped(KEY, bit)), "weights", 0))


def test_secret_streams_depend_on_every_bit_of_the_key_and_not_on_the_seed() -> None:
    check_keyed(Streams)


@pytest.mark.parametrize("twin", [broken.streams.SeededStreams, broken.streams.ShortStreams])
def test_flipping_each_bit_of_the_key_catches(twin: type[Streams]) -> None:
    with pytest.raises(AssertionError):
        check_keyed(twin)


def test_noise_can_be_made_again_from_a_seed_only_where_it_was_declared_reproducible() -> None:
    declared = Streams(7, reproducible_key(7))
    attacker = Streams(7, reproducible_key(7))
    assert np.array_equal(secret(declared, "weights", 3), secret(attacker, "weights", 3))
    assert not np.array_equal(secret(Streams(7, new_key()), "weights", 3), secret(attacker, 3))


def test_new_keys_are_long_and_never_alike() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert {len(key) for key in keys} == {KEY_BYTES}


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError):
        Streams(0, bytes(length))


def test_public_and_secret_streams_refuse_each_others_names() -> None:
    streams = Streams(0, KEY)
    assert not PUBLIC_STREAMS & SECRET_STREAMS
    assert {"poisson", "dp-noise"} <= SECRET_STREAMS
    for name in (*SECRET_STREAMS, "nonsense"):
        expect_refused(ValueError, lambda name=name: streams.public(name))  # type: ignore[misc]
        expect_refused(ValueError, lambda name=name: streams.seed(name))  # type: ignore[misc]
    for name in (*PUBLIC_STREAMS, "nonsense"):
        expect_refused(ValueError, lambda name=name: streams.secret(name))  # type: ignore[misc]


def check_paths(kind: type[Streams]) -> None:
    """Different paths are different streams, however their parts are cut."""
    streams = kind(0, KEY)
    paths = [(), ("a",), ("a", 0), ("a", 1), ("a0",), ("a", "0", ""), ("", "a0"), ("a1", 0), (10,)]
    draws = [tuple(secret(streams, *path)) for path in paths]
    assert len(set(draws)) == len(paths)
    assert draws[2] == tuple(secret(streams, "a", 0))
    poisson = streams.secret("poisson", "a", 0).standard_normal(8)
    assert tuple(poisson) not in draws


def test_no_two_paths_share_a_stream() -> None:
    check_paths(Streams)


def test_comparing_paths_catches_paths_that_are_run_together() -> None:
    with pytest.raises(AssertionError):
        check_paths(broken.streams.RunTogetherStreams)


def test_public_streams_depend_on_the_seed_and_not_on_the_key() -> None:
    def draw(seed: int, key: bytes) -> list[float]:
        generator = Streams(seed, key).public("initial", "denoiser")
        return torch.rand(4, generator=generator).tolist()

    assert draw(0, KEY) == draw(0, bytes(KEY_BYTES)) != draw(1, KEY)


def test_who_has_no_key_has_the_public_streams_only() -> None:
    assert Streams(7).seed("initial") == Streams(7, KEY).seed("initial")
    for draw in (Streams(7).secret, Streams(7).secret_torch):
        with pytest.raises(ValueError, match="there is no key here"):
            draw("dp-noise", "weights", 0)


# What else must not be public.


@dataclass(frozen=True)
class RandomSign:
    """The gradient of image i is a random sign on coordinate i: a release shows the draws."""

    multiplicity: int = 1

    def draw(self, pixels: Tensor, labels: Tensor, rng: torch.Generator) -> Copies:
        signs = 2.0 * torch.randint(0, 2, (len(labels), 1), generator=rng) - 1
        return labels[:, None], signs

    def loss(self, predict: Predict, *copies: Tensor) -> Tensor:
        labels, signs = copies
        return (signs * predict(labels.flatten())[:, None]).mean(dim=1)


def test_what_private_training_draws_for_its_examples_cannot_be_known_from_the_seed() -> None:
    # The copies of an example must be drawn independently of who else is in the batch. Drawn one
    # after another from a stream that is known, they are not: one example less gives all that
    # follow other copies, and the sum moves by far more than the clipping norm.
    steps = Steps(Coordinates(100), RandomSign(), DPSGDEvent(1.0, 0.0, 1.0, 1, "weights"))
    images = some_images(100, side=1)
    ours, theirs = (flat(steps(images, streams=Streams(0, key))[0]) for key in (KEY, bytes(32)))
    assert set(ours.round().tolist()) == {-1.0, 1.0}
    assert not torch.equal(ours, theirs)


# Models that mix examples.


class KeepsMean(nn.Module):
    """Subtracts a running mean of what it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.readout = nn.Linear(1, 1)
        self.register_buffer("mean", torch.zeros(1))
        self.mean: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.mean.mul_(0.9).add_(0.1 * x.mean())
        result: Tensor = self.readout(x - self.mean)
        return result


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm1d(4),
        nn.BatchNorm2d(4),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.SyncBatchNorm(4),
        nn.LazyBatchNorm2d(),
        nn.InstanceNorm2d(4, track_running_stats=True),
    ],
    ids=str,
)
def test_layers_that_mix_examples_or_remember_them_are_refused(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(nn.ReLU(), layer))
    refusal = expect_refused(UserError, lambda: check_model(model))
    assert "1.1" in refusal
    assert "\n" not in refusal


@pytest.mark.parametrize(
    "layer",
    [
        nn.GroupNorm(2, 4),
        nn.LayerNorm(4),
        nn.InstanceNorm2d(4),
        nn.Dropout(0.0),
        nn.Dropout().eval(),
        nn.MultiheadAttention(4, 2),
    ],
    ids=str,
)
def test_layers_that_treat_examples_one_by_one_are_not(layer: nn.Module) -> None:
    check_model(nn.Sequential(nn.Conv2d(1, 4, 3), layer))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Dropout(0.13),
        nn.Dropout2d(),
        nn.AlphaDropout(0.1),
        nn.RReLU(),
        nn.MultiheadAttention(4, 2, dropout=0.1),
        nn.LSTM(4, 4, 2, dropout=0.1),
    ],
    ids=str,
)
def test_layers_that_draw_in_training_are_refused_by_name(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(nn.ReLU(), layer))
    refusal = expect_refused(UserError, lambda: check_model(model))
    assert f"'1.1' ({type(layer).__name__}) draws at random" in refusal
    assert "or draw in the objective" in refusal and "\n" not in refusal


def test_training_refuses_a_model_that_mixes_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> None:
        steps = Steps(nn.BatchNorm1d(1), RandomSign(), DPSGDEvent(0.5, 1.0, 1.0, 1, "weights"))
        expect_refused(UserError, lambda: steps(some_images(4)))

    check()
    monkeypatch.setattr(mechanisms, "check_model", lambda model: None)
    with pytest.raises(Detected):
        check()


@dataclass(frozen=True)
class MeanOutput:
    multiplicity: int = 1

    def draw(self, pixels: Tensor, labels: Tensor, rng: torch.Generator) -> Copies:
        return (labels[:, None].float(),)

    def loss(self, predict: Predict, *copies: Tensor) -> Tensor:
        return predict(copies[0]).flatten(1).mean(dim=1)


def check_memory(engine: str) -> None:
    model = KeepsMean()
    steps = Steps(model, MeanOutput(), DPSGDEvent(1.0, 1.0, 1.0, 2, "weights"), engine=engine)
    with pytest.raises((RuntimeError, UserError), match="in-place|buffer 'mean'"):
        steps(some_images(20))
    assert math.isclose(float(model.mean), 0.0)


# the engine of Opacus works on a copy of the model
@pytest.mark.parametrize("engine", [each for each in ENGINES if each != "opacus"])
def test_nothing_that_a_model_remembers_of_private_images_outlives_training(engine: str) -> None:
    check_memory(engine)


def test_a_model_that_remembers_is_seen_by_looking_at_its_buffers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dpsgd, "_check_buffers", lambda model, before: None)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        check_memory("folded")
