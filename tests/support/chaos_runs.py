"""The small run that chaos befalls, and what it gives when nothing does."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.chaos import TRACEBACK, Ended, Place, run

EVALUATORS = "toy,audit,memorization,fidelity"
TOY_RUN = (
    *("run", "--method", "toy", "--dataset", "digits", "--profile", "smoke", "--eps", "0.001"),
    *("--set", "steps=40", "--out", "here"),
)
COMMAND = (*TOY_RUN, "--evaluators", EVALUATORS, "--reproducible")

TIMED = (*TOY_RUN, "--evaluators", "toy")  # its engine by the stopwatch, its key its own
PRETRAINED = (  # on public images first
    *("run", "--method", "dpsyngen", "--dataset", "digits", "--profile", "smoke"),
    *("--eps", "0.001", "--set", "steps=2", "--evaluators", "toy"),
    *("--out", "here", "--reproducible"),
)


@dataclass(frozen=True)
class Whole:
    """What an uninterrupted run gives."""

    samples: bytes
    record: dict[str, Any]
    seconds: float  # of CPU


@dataclass(frozen=True)
class Lab:
    """What all cases start from.

    Attributes:
        cache: A cache that an uninterrupted run filled.
        whole: That run.
        folder: Its folder.
        seed: Of all that is random.
    """

    cache: Path
    whole: Whole
    folder: Path
    seed: int

    def warm(self, place: Place) -> Place:
        """Give a place the cache."""
        shutil.copytree(self.cache, place.cache, dirs_exist_ok=True)
        return place

    def started(self, place: Place) -> Place:
        """Give a place the cache and the whole run."""
        shutil.copytree(self.folder, place.work / "here")
        return self.warm(place)


def whole_of(folder: Path, seconds: float = 0.0) -> Whole:
    content = json.loads((folder / "record.json").read_text())
    return Whole((folder / "samples.npz").read_bytes(), comparable(content), seconds)


def comparable(record: dict[str, Any]) -> dict[str, Any]:
    """A record apart from what interruptions may change: times, sittings, memory, order.

    The state of the checkout is left out too, so that who edits it meanwhile breaks no case.
    """
    content = {name: part for name, part in record.items() if name not in ("timings", "digest")}
    content["environment"] = {**content["environment"], "git_revision": None}
    if "code" in content["privacy"]:
        content["privacy"] = {**content["privacy"], "code": None}
    resolved = dict(content["resolved"])
    resolved.pop("sittings", None)
    for choice in resolved.get("gradients", {}).values():
        if isinstance(choice, dict):
            choice.pop("copies_per_s", None)
    if "pretrained" in resolved:
        resolved["pretrained"] = {**resolved["pretrained"], "reused": None}
    content["resolved"] = resolved
    content["cost"] = {k: v for k, v in content["cost"].items() if k != "peak_memory_mb"}
    content["measurements"] = sorted(json.dumps(row) for row in content["measurements"])
    content["done"] = sorted(content["done"])
    content["evaluators"] = dict(sorted(content.get("evaluators", {}).items()))
    return content


def same(folder: Path, whole: Whole, but: tuple[str, ...] = ()) -> str:
    """How a run differs from an uninterrupted one; ``""`` if it does not.

    Args:
        folder: Of the run.
        whole: The uninterrupted one.
        but: Parts of the record that may differ.
    """
    found = whole_of(folder)
    wrong = []
    if found.samples != whole.samples:
        wrong.append("other samples")
    for name in {*whole.record, *found.record}:
        if name not in but and found.record.get(name) != whole.record.get(name):
            wrong.append(
                f"{name} is {str(found.record.get(name))[:500]}, "
                f"not {str(whole.record.get(name))[:500]}"
            )
    if leftovers := [str(path) for path in folder.rglob(".*")]:
        wrong.append(f"{leftovers} are left")
    if (folder / "training").exists():
        wrong.append("training/ is left")
    return "; ".join(wrong)


def continued(place: Place, whole: Whole, arguments: tuple[object, ...] = COMMAND) -> None:
    """Hold that the same command now ends well and gives what an uninterrupted one gives."""
    ended = run(place, *arguments)
    assert ended.code == 0, f"the same command then: {ended}"
    assert not (wrong := same(place.work / "here", whole)), wrong


def refused(ended: Ended, codes: tuple[int, ...] = (1, 2)) -> None:
    """Hold that a command ended with one line that says why."""
    assert not ended.hung, f"it hangs: {ended}"
    assert ended.code in codes, f"not refused: {ended}"
    assert TRACEBACK not in ended.err + ended.out, str(ended)
    assert ended.last.startswith("Error: "), f"no line says why: {ended}"
    assert ended.err.count("Error: ") == 1 or not re.findall(r"(?m)^Error: ", ended.err)[1:], (
        f"more than one line: {ended}"
    )


def stage_of(folder: Path) -> str:
    """How far the run in a folder is."""
    file = folder / "record.json"
    if not file.exists():
        return "before the record"
    content = json.loads(file.read_text())
    if content["status"] == "complete":
        return "over"
    parts = ["fit", "sample"]
    return next((part for part in parts if part not in content["done"]), "evaluators")
