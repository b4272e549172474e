"""The noise of a run cannot be made again from what the run publishes."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dpbench.core.streams import KEY_BYTES, Streams
from dpbench.runs import steps
from tests.support.checks.key import (
    PURPOSE,
    check_noise_is_not_published,
    check_reproducible_noise_is_void_for_release,
)
from tests.support.command import TOY, Command


def test_the_noise_of_a_run_cannot_be_made_again_from_what_it_publishes(
    dpbench: Command, toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_noise_is_not_published(dpbench, tmp_path, monkeypatch)


def test_that_of_a_reproducible_run_can_and_its_certificate_says_so(
    dpbench: Command, toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_reproducible_noise_is_void_for_release(dpbench, tmp_path, monkeypatch)


def check_methods_have_no_key(
    dpbench: Command, toy: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method cannot draw what the mechanisms draw, so neither publish nor subtract it."""
    honest, given = toy.Toy.fit, []

    def fit(self: Any, private: Any, run: Any) -> Any:
        given.append(run.streams)
        return honest(self, private, run)

    with monkeypatch.context() as patch:
        patch.setattr(toy.Toy, "fit", fit)
        assert dpbench(*TOY, "--out", folder).code == 0
    for streams in given:
        try:
            streams.secret("dp-noise", PURPOSE, 0)
        except ValueError:
            continue
        raise AssertionError("a method got streams with a key")
    assert given


def test_methods_get_public_streams_only(
    dpbench: Command, toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_methods_have_no_key(dpbench, toy, tmp_path / "run", monkeypatch)


def test_a_method_with_the_key_is_noticed(
    dpbench: Command, toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Generous(Streams):
        def __init__(self, seed: int, key: bytes | None = None) -> None:
            super().__init__(seed, key or bytes(KEY_BYTES))

    monkeypatch.setattr(steps, "Streams", Generous)
    with pytest.raises(AssertionError):
        check_methods_have_no_key(dpbench, toy, tmp_path / "run", monkeypatch)
