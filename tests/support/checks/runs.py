"""Checks of whole runs: what they publish of private images, spend, and make again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from dpbench.api.method import Plan
from dpbench.core.images import Images
from dpbench.data.load import Dataset
from dpbench.privacy import dpsgd
from dpbench.runs import execute
from tests.support.checks import expect
from tests.support.command import TOY, Command

# what differs between two runs that do the same
VOLATILE = ("timings", "digest")
VOLATILE_COST = "peak_memory_mb"


@contextmanager
def other_private_images() -> Iterator[None]:
    """Other pixels and labels in the train split, under the same name and hash."""
    honest = execute.load

    def other(*arguments: Any) -> Dataset:
        data = honest(*arguments)
        train = data.splits.train
        labels = (train.labels + 1) % data.info.classes
        splits = dataclasses.replace(data.splits, train=Images(255 - train.pixels, labels))
        return dataclasses.replace(data, splits=splits)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execute, "load", other)
        yield


def check_nothing_released_nothing_published(
    dpbench: Command, toy: ModuleType, folder: Path
) -> None:
    """A method that releases nothing leaves the same files whatever the private images are."""

    def published(name: str) -> dict[str, Any]:
        assert dpbench(*TOY, "--out", folder / name).code == 0
        files: dict[str, Any] = {
            file.name: file.read_bytes()
            for file in (folder / name).rglob("*")
            if file.is_file() and not file.name.startswith(".")
        }
        assert {"checkpoint.pt", "samples.npz", "grid.png"} < files.keys()
        record = json.loads(files.pop("record.json"))
        for part in VOLATILE:
            record.pop(part)
        record["cost"].pop(VOLATILE_COST)
        return files | {f"record: {part}": value for part, value in record.items()}

    with pytest.MonkeyPatch.context() as patch:
        nothing = toy.ToySampler(torch.zeros(1, 16, 16))
        patch.setattr(toy.Toy, "plan", lambda *_: Plan())
        patch.setattr(toy.Toy, "fit", lambda *_: nothing)
        one = published("one set")
        with other_private_images():
            another = published("another set")
    differing = [name for name in {**one, **another} if one.get(name) != another.get(name)]
    expect(not differing, f"what a run publishes depends on releases alone, but: {differing}")


def check_evaluations_beyond_the_plan(dpbench: Command, toy: ModuleType, folder: Path) -> None:
    """Training that makes more gradient evaluations than were planned makes none."""
    honest = toy.Toy.plan

    def four(*arguments: Any) -> Plan:
        plan: Plan = honest(*arguments)
        return replace(plan, stages=(replace(plan.stages[0], evaluations=4),))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy.Toy, "plan", four)
        ended = dpbench(*TOY, "--out", folder / "run")
    expect(ended.code != 0, "more evaluations than planned are refused")
    assert "gradient evaluations to 64, but the method plans 4" in ended.err
    expect("step" not in toy.CALLS, "they are refused before the first is made")


def check_spending_of_a_resumed_run(dpbench: Command, toy: ModuleType, folder: Path) -> None:
    """A run that died may not spend something else when it is taken up again."""
    assert interrupted(dpbench, toy, folder / "run") == 1
    honest = toy.Toy._event

    def other(*arguments: Any) -> Any:
        event = honest(*arguments)
        return replace(event, noise_multiplier=2 * event.noise_multiplier)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy.Toy, "_event", other)
        ended = dpbench(*TOY, "--out", folder / "run")
    expect(ended.code != 0, "a resumed run spends what it spent before")
    assert "and now wants to spend" in ended.err


@contextmanager
def noise_by_step() -> Iterator[dict[int, set[bytes]]]:
    """The noises that the toy's steps draw inside the block, of each step as a set."""
    honest, drawn = dpsgd.gaussian_noise, dict[int, set[bytes]]()

    def seen(like: Any, streams: Any, purpose: str, step: int) -> Any:
        noise = honest(like, streams, purpose, step)
        drawn.setdefault(step, set()).add(noise["mean"].numpy().tobytes())
        return noise

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dpsgd, "gaussian_noise", seen)
        yield drawn


def check_overwriting(dpbench: Command, toy: ModuleType, folder: Path) -> None:
    """``--overwrite`` starts from the first step with another key."""
    with noise_by_step() as drawn:
        assert interrupted(dpbench, toy, folder / "run") == 1
        assert sorted(drawn) == [0, 1]
        assert dpbench(*TOY, "--out", folder / "run", "--overwrite").code == 0
    noises = {step: len(each) for step, each in drawn.items()}
    expect(noises == {0: 2, 1: 2, 2: 1, 3: 1}, "a run anew makes all releases with other noise")


def interrupted(dpbench: Command, toy: ModuleType, folder: Path) -> int:
    """Exit code of a run that dies in its third step."""

    def die(count: int) -> None:
        if count == 3:
            raise MemoryError

    toy.CALLS.pop("step", None)
    toy.HOOKS["step"] = die
    try:
        return dpbench(*TOY, "--out", folder).code
    finally:
        toy.HOOKS.pop("step")


Check = Callable[[Command, ModuleType, Path], None]
