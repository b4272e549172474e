"""Choosing an engine and a physical batch size."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dpbench.core.cache import Cache
from dpbench.core.errors import RunFailed, UserError
from dpbench.core.images import ImageSpec
from dpbench.core.streams import Streams
from dpbench.generators.dpdm import DPDM
from dpbench.privacy.clipping import Objective, Predict, selection
from dpbench.privacy.clipping.selection import Execution, Executions, choose, first_that_fits
from dpbench.privacy.mechanisms import PrivateSetInfo
from tests.support import broken
from tests.support.private import (
    Gradients,
    Regression,
    convolutions,
    perceptron,
)


@dataclass(frozen=True)
class MixesExamples(Regression):
    def loss(self, predict: Predict, *copies: Tensor) -> Tensor:
        losses = super().loss(predict, *copies)
        return losses * losses.mean()


@dataclass(frozen=True)
class ExamplesOutermost(Regression):
    """Gives the network its rows in another order than ``as_rows``."""

    def loss(self, predict: Predict, *copies: Tensor) -> Tensor:
        x, target = copies
        return (predict(x.flatten(0, 1)).view_as(target) - target).square().mean(dim=1)


@pytest.mark.parametrize("objective", [MixesExamples(2), ExamplesOutermost(2)])
def test_an_engine_is_held_against_autograd_before_it_is_used(objective: Objective) -> None:
    spec = ImageSpec(1, 4, 4)
    assert choose(perceptron(), Regression(2), spec, "folded").engine == "folded"
    with pytest.raises(UserError, match="disagree on"):
        choose(perceptron(), objective, spec, "folded")
    assert choose(perceptron(), objective, spec, "auto").engine in ("vmap", "loop")


def test_auto_takes_an_engine_that_can_do_the_model() -> None:
    assert choose(convolutions(), Regression(2), ImageSpec(1, 4, 4), "auto").engine != "folded"


def test_the_folded_engine_trains_the_laptop_preset_of_dpdm() -> None:
    (laptop,) = (preset for preset in DPDM.presets if preset.profile == "laptop")
    method, info = DPDM(**laptop.values), PrivateSetInfo("", ImageSpec(1, 28, 28), 10, 60000)
    assert method.centre_widths
    denoiser = method.model().denoiser(info, Streams(0), "denoiser")
    objective = method.model().objective(info.classes, method.multiplicity)
    execution = first_that_fits(denoiser, objective, info.spec)
    assert (execution.engine, execution.refused) == ("folded", {})


def test_what_was_timed_once_is_chosen_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    first = choose(perceptron(), Regression(2), ImageSpec(1, 4, 4), "auto", cache)
    for _ in range(3):
        assert choose(perceptron(), Regression(2), ImageSpec(1, 4, 4), "auto", cache) == first
    for file in (tmp_path / "engines").iterdir():
        file.write_text("{")
    assert choose(perceptron(), Regression(2), ImageSpec(1, 4, 4), "loop", cache).engine == "loop"


def test_physical_batches_fit_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def size(memory: float) -> int:
        monkeypatch.setattr(selection, "_memory", lambda device: memory)
        return choose(perceptron(), Regression(2), ImageSpec(1, 4, 4), "vmap").physical_batch

    assert size(1e12) == selection.CPU_COPIES // 2
    assert 1 < size(1e5) < selection.CPU_COPIES // 2
    assert size(1.0) == 1


def fails_to(error: Exception) -> Callable[..., Gradients]:
    def clipped_sum(*arguments: object) -> Gradients:
        raise error

    return clipped_sum


def with_engine(monkeypatch: pytest.MonkeyPatch, name: str, twin: object) -> None:
    monkeypatch.setattr(f"dpbench.privacy.clipping.{name}.clipped_sum", twin)


SPEC = ImageSpec(1, 4, 4)
BROKEN = [
    (broken.clipping.never_clips, "disagree on"),
    (fails_to(IndexError("Dimension out of range\nand more")), "IndexError: Dimension out of rang"),
    (fails_to(TypeError("no such keyword")), "TypeError: no such keyword"),
]


@pytest.mark.parametrize("twin, reason", BROKEN, ids=["never clips", "IndexError", "TypeError"])
def test_why_an_engine_was_refused_is_told_and_recorded_with_the_choice(
    twin: object, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_engine(monkeypatch, "folded", twin)
    record: dict[str, Any] = {}
    told: list[str] = []
    Executions(chosen=record, decided=told.append).of("weights", perceptron(), Regression(2), SPEC)
    assert record["weights"]["engine"] in ("vmap", "loop")
    assert list(record["weights"]["refused"]) == ["folded"]
    assert reason in record["weights"]["refused"]["folded"]
    assert reason in told[0] and "\n" not in told[0]
    assert (
        first_that_fits(perceptron(), Regression(2), SPEC).refused == record["weights"]["refused"]
    )
    with pytest.raises(UserError, match=f"the folded engine cannot train this model: .*{reason}"):
        choose(perceptron(), Regression(2), SPEC, "folded")


def test_if_every_engine_fails_one_line_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("folded", "vmap", "loop"):
        with_engine(monkeypatch, name, fails_to(KeyError(f"in {name}")))
    for chosen in (lambda *of: choose(*of, "auto"), first_that_fits):
        with pytest.raises(RunFailed, match="folded: KeyError.*; vmap: .*; loop: ") as failure:
            chosen(perceptron(), Regression(2), SPEC)
        assert "\n" not in str(failure.value)


def test_an_engine_that_was_timed_before_it_broke_is_not_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path)
    monkeypatch.setattr(selection, "_copies_per_s", lambda *of: {"folded": 9.0}.get(of[3], 1.0))
    record: dict[str, Any] = {}
    first = Executions(chosen=record, cache=cache).of("weights", perceptron(), Regression(2), SPEC)
    assert first.engine == "folded"
    with_engine(monkeypatch, "folded", broken.clipping.never_clips)
    second = choose(perceptron(), Regression(2), SPEC, "auto", cache)
    assert second.engine == "vmap" and "folded" in second.refused
    with pytest.raises(
        UserError, match="folded engine and plain autograd disagree"
    ):  # a resumed run
        Executions(chosen=record, cache=cache).of("weights", perceptron(), Regression(2), SPEC)


def test_an_engine_that_was_mended_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path)
    monkeypatch.setattr(selection, "_copies_per_s", lambda *of: {"folded": 9.0}.get(of[3], 1.0))
    with monkeypatch.context() as patch:
        with_engine(patch, "folded", broken.clipping.never_clips)
        assert choose(perceptron(), Regression(2), SPEC, "auto", cache).engine == "vmap"
    assert choose(perceptron(), Regression(2), SPEC, "auto", cache).engine == "folded"


def stopwatches(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Have each engine be the fastest in turn."""
    for fastest in ("folded", "vmap", "loop"):
        with monkeypatch.context() as patch:
            patch.setattr(
                selection, "_copies_per_s", lambda *of, best=fastest: 9.0 if of[3] == best else 1.0
            )
            yield fastest


def test_a_reproducible_run_has_the_same_engine_whatever_a_stopwatch_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(reproducible: bool, cache: Cache | None) -> Execution:
        executions = Executions(cache=cache, reproducible=reproducible)
        return executions.of("weights", perceptron(), Regression(2), SPEC)

    fixed, timed = set(), set()
    for number, fastest in enumerate(stopwatches(monkeypatch)):
        warm = Cache(tmp_path / f"{number}")
        assert chosen(False, warm).engine == fastest
        timed.add(fastest)
        fixed |= {str(chosen(True, cache)) for cache in (warm, Cache(tmp_path / "cold"), None)}
    assert len(fixed) == 1 and len(timed) == 3


def test_a_lack_of_memory_changes_no_reproducible_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with_engine(monkeypatch, "folded", fails_to(MemoryError()))
    with pytest.raises(MemoryError):
        Executions(reproducible=True).of("weights", perceptron(), Regression(2), SPEC)
    assert choose(perceptron(), Regression(2), SPEC, "auto").engine != "folded"


def test_a_lack_of_memory_is_no_verdict_on_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("folded", "vmap", "loop"):
        with_engine(monkeypatch, name, fails_to(MemoryError()))
    for name in ("auto", "folded"):
        with pytest.raises(MemoryError):
            choose(perceptron(), Regression(2), SPEC, name)


def test_timings_are_made_again_for_other_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[str] = []

    def speed(*of: object) -> float:
        timed.append(str(of[3]))
        return 1.0

    monkeypatch.setattr(selection, "_copies_per_s", speed)
    cache = Cache(tmp_path)
    for _ in range(2):
        choose(perceptron(), Regression(2), SPEC, "auto", cache)
    assert timed == ["folded", "vmap", "loop"]
    monkeypatch.setattr(selection, "_code_hash", lambda: "of other code")
    choose(perceptron(), Regression(2), SPEC, "auto", cache)
    assert timed == 2 * ["folded", "vmap", "loop"]


def test_the_hash_of_the_code_depends_on_every_file_of_the_engines(tmp_path: Path) -> None:
    folder = tmp_path / "clipping"
    shutil.copytree(Path(selection.__file__).parent, folder)
    hashes = [selection._code_hash(), selection._code_hash.__wrapped__(folder)]
    for file in folder.glob("*.py"):
        file.write_bytes(file.read_bytes() + b"\n")
        hashes.append(selection._code_hash.__wrapped__(folder))
    assert len(hashes) > 9 and hashes[0] == hashes[1]
    assert len(set(hashes)) == len(hashes) - 1


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"folded": "fast"}', '{"folded": 0}', '{"abacus": 1.0}', "7"]
)
def test_timings_of_another_format_are_made_again(content: str, tmp_path: Path) -> None:
    said: list[str] = []
    cache, device = Cache(tmp_path, said.append), torch.device("cpu")
    name = f"engines/{selection._key(perceptron(), Regression(2), SPEC, device)}.json"
    cache.keep(name, lambda handle: handle.write(content.encode()))
    first = choose(perceptron(), Regression(2), SPEC, "auto", cache)
    assert set(first.copies_per_s) == {"folded", "vmap", "loop"}
    assert "it is made again" in said[0]
    assert cache.find(name, json.load) == first.copies_per_s
