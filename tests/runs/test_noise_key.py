"""Methods get no key, so the noise of a run cannot be made again by them.

That it cannot be made again from what a run publishes either is held by a detector of the mutation
matrix, "attack on what is published".
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dpbench.core.streams import KEY_BYTES, Streams
from dpbench.runs import fitting
from tests.support.checks.key import (
    PURPOSE,
)
from tests.support.command import TOY, Command


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

    monkeypatch.setattr(fitting, "Streams", Generous)
    with pytest.raises(AssertionError):
        check_methods_have_no_key(dpbench, toy, tmp_path / "run", monkeypatch)
