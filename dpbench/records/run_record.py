"""The record of a run: every number of the project is in one, and everything is derived from it.

Torch is not needed to read records.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from dpbench.core.errors import UserError
from dpbench.core.files import safe_name
from dpbench.core.metrics import Measurement

SCHEMA_VERSION = 1
RECORD = "record.json"
# how many releases were made, counted one by one: beside the checkpoint, and no pickle
RELEASES = "releases.json"
KEPT = "evaluation-"  # what evaluators keep, followed by their names
Status = Literal["started", "complete", "failed"]


@dataclass(frozen=True)
class RunSpec:
    """Everything that can change what a score means, and nothing else.

    Attributes:
        method: CLI name.
        method_version: Distribution and version; for third-party methods the file's hash too.
        method_args: Every hyper-parameter.
        dataset: Name.
        dataset_hash: SHA-256 of its decoded arrays.
        epsilon: Of the budget; ``inf`` for none.
        delta: Of the budget.
        adjacency: Of the budget.
        seed: Public seed.
        profile: Name.
        compute: The profile's compute budget.
        samples: Number of synthetic images.
        public: Name of the public data set, or None.
        precision: Of the forward pass.
        reproducible: Whether the noise derives from the public seed.
        schema_version: Of the record.
    """

    method: str
    method_version: str
    method_args: dict[str, Any]
    dataset: str
    dataset_hash: str
    epsilon: float
    delta: float
    adjacency: str
    seed: int
    profile: str
    compute: dict[str, float]
    samples: int
    public: str | None = None
    precision: str = "float32"
    reproducible: bool = False
    schema_version: int = SCHEMA_VERSION

    @property
    def id(self) -> str:
        """SHA-256 of the content, 64 hex digits."""
        return _sha256(to_json(asdict(self)))

    @property
    def folder(self) -> Path:
        """Where the run lives below the runs folder."""
        name = f"eps{self.epsilon:g}-seed{self.seed}-{self.id[:8]}"
        return Path(safe_name(self.dataset)) / self.method / name


@dataclass
class RunRecord:
    """One run, from its start on.

    Attributes:
        spec: What was asked for.
        status: ``started``, ``complete`` or ``failed``.
        done: Boundaries passed: ``fit``, ``sample`` and the names of evaluators.
        resolved: What was chosen by preset, hand or machine, and is no part of the id.
        privacy: The certificate, from the end of ``fit`` on.
        measurements: The numbers.
        timings: Seconds for each part, interruptions left out.
        cost: Gradient evaluations of each stage (expected over Poisson sampling), peak memory.
        environment: Versions and machine.
        artifacts: SHA-256 of each file beside the record.
        error: Why the run failed, or None.
    """

    spec: RunSpec
    status: Status = "started"
    done: list[str] = field(default_factory=list)
    resolved: dict[str, Any] = field(default_factory=dict)
    privacy: dict[str, Any] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)
    error: str | None = None

    def dumps(self) -> str:
        """The record as a JSON document; infinity is the string "inf"."""
        content = to_json(
            {
                "schema_version": SCHEMA_VERSION,
                "id": self.spec.id,
                **{part.name: _plain(getattr(self, part.name)) for part in fields(self)},
            }
        )
        content["digest"] = digest(content)
        return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, RunSpec):
        return asdict(value)
    if isinstance(value, list):
        return [asdict(item) if isinstance(item, Measurement) else item for item in value]
    return value


def to_json(value: Any) -> Any:
    """Replace what JSON does not have: infinities by strings, tuples by lists."""
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value


def digest(content: dict[str, Any]) -> str:
    """SHA-256 of everything in a record but the digest itself, 64 hex digits.

    It shows edits by hand. It cannot show a forgery: whoever edits can compute it again.
    """
    return _sha256({name: part for name, part in content.items() if name != "digest"})


def _sha256(content: Any) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def parse(file: Path) -> tuple[RunRecord, dict[str, Any]]:
    """Read a record without asking whether it was edited.

    Returns:
        The record, and the JSON document that it was read from.

    Raises:
        UserError: It cannot be read, or is not a record of this schema version.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        version = content["schema_version"]
        if version != SCHEMA_VERSION:
            raise UserError(
                f"{file} has schema version {version}; this dpbench reads {SCHEMA_VERSION}"
            )
        spec = dict(content["spec"])
        spec["epsilon"] = float(spec["epsilon"])
        parts = {part.name: content[part.name] for part in fields(RunRecord)}
        parts["spec"] = RunSpec(**spec)
        parts["measurements"] = [Measurement(**each) for each in content["measurements"]]
        for name, kind in (("id", str), ("privacy", dict), ("artifacts", dict)):
            if not isinstance(content[name], kind):
                raise TypeError(f"{name} is {content[name]!r}")
        return RunRecord(**parts), content
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is not a record: {type(error).__name__}: {error}") from error


def edits(record: RunRecord, content: dict[str, Any]) -> list[str]:
    """What gives away that a record was edited by hand, one line each.

    Args:
        record: From ``parse``.
        content: The same.
    """
    found = []
    if record.spec.id != content["id"]:
        found.append("its id is not that of its spec")
    # records made before there were digests have none
    if "digest" in content and content["digest"] != digest(content):
        found.append("its digest is not that of its content")
    return found


def read(file: Path) -> RunRecord:
    """Read a record.

    Raises:
        UserError: It cannot be read, is not a record of this schema version, or was edited.
    """
    record, content = parse(file)
    if found := edits(record, content):
        raise UserError(f"{file} was edited: {', '.join(found)}")
    return record


def find(folder: Path) -> Iterator[Path]:
    """All record files below a folder, sorted."""
    yield from sorted(folder.rglob(RECORD))
