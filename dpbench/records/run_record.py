"""The record of a run. Every number of the project is in one, and all tables derive from them.

Torch is not needed to read records.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from dpbench.core.canonical import sha256_of, to_json
from dpbench.core.errors import UserError
from dpbench.core.files import safe_name
from dpbench.core.metrics import Measurement
from dpbench.core.regular import read_regular
from dpbench.core.strict import STRICT, OrInfinity, document, parse_document
from dpbench.privacy.budget import Adjacency
from dpbench.records.evaluator_status import EvaluatorStatus

# 1: runs before methods, sources and evaluators had versions of their own
SchemaVersion = Literal[1, 2]
SCHEMA_VERSION: SchemaVersion = 2
RECORD = "record.json"
LARGEST = 2**24  # bytes of a document; the longest records have 60 kB
# the counters of releases, as JSON beside the checkpoint, so that nothing is unpickled to read them
RELEASES = "releases.json"
KEPT = "evaluation-"  # prefix of the files that evaluators keep, before the evaluator's name
Status = Literal["started", "complete", "failed"]
# What becomes part of a path is held to one part of it, wherever a record comes from.
MethodName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=64)]
FileName = Annotated[str, StringConstraints(pattern=r"^\w[\w.+-]*$", max_length=255)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
_Count = Annotated[int, Field(ge=0)]
_Name = Annotated[str, StringConstraints(min_length=1, max_length=1000)]


@dataclass(frozen=True)
class RunSpec:
    """Everything that can change what a score means, and nothing else.

    Attributes:
        method: CLI name.
        method_version: Version of the method's code, from ``registry.version_of``.
        method_args: Every hyper-parameter.
        dataset: Name of the data set.
        dataset_hash: SHA-256 of its decoded arrays.
        epsilon: The privacy budget's epsilon; ``inf`` for a run that is not private.
        delta: The privacy budget's delta.
        adjacency: Which data sets are neighbours.
        seed: Public seed.
        profile: Name of the profile.
        compute: The profile's compute budget.
        samples: Number of synthetic images.
        public: Name of the public data set, or None.
        precision: Dtype of the network's forward pass.
        reproducible: Whether the noise derives from the public seed.
        schema_version: Version of the record's schema.
    """

    method: MethodName
    method_version: str
    method_args: dict[str, Any]
    dataset: _Name
    dataset_hash: str
    epsilon: Annotated[OrInfinity, Field(gt=0)]
    delta: Annotated[float, Field(gt=0, lt=1)]
    adjacency: Adjacency
    seed: Seed
    profile: _Name
    compute: dict[str, OrInfinity]
    samples: _Count
    public: str | None = None
    precision: str = "float32"
    reproducible: bool = False
    schema_version: SchemaVersion = SCHEMA_VERSION

    @property
    def id(self) -> str:
        """SHA-256 of the content, 64 hex digits."""
        return sha256_of(to_json(asdict(self)))

    @property
    def folder(self) -> Path:
        """The run's folder, relative to the folder of all runs."""
        name = f"eps{self.epsilon:g}-seed{self.seed}-{self.id[:8]}"
        return Path(safe_name(self.dataset)) / safe_name(self.method) / name


_OPEN = ConfigDict(**{**STRICT, "extra": "allow"})


class Pretrained(BaseModel):
    """What is read of the public weights; there may be more."""

    model_config = _OPEN

    seed: Seed = 0


class Resolved(BaseModel):
    """What is read of the choices that are not part of the id; there may be more."""

    model_config = _OPEN

    preset: str = ""
    by_hand: list[str] = []
    departures: list[str] = []
    pretrained: Pretrained | None = None


class Cost(BaseModel):
    """What is read of the cost; there may be more."""

    model_config = _OPEN

    private_evaluations: _Count = 0
    public_evaluations: _Count = 0


def _as_read(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    check(value)
    return value  # in its own order, so that what was read is written again byte for byte


@dataclass
class RunRecord:
    """One run, finished or not.

    Attributes:
        spec: Everything that the run's id is computed from.
        status: ``started``, ``complete`` or ``failed``.
        done: Parts that are over: ``fit``, ``sample`` and the names of evaluators.
        evaluators: How each evaluator ended, by name; empty in records of schema version 1.
        resolved: Choices of the preset, the user and the machine that are not part of the id.
        privacy: The certificate, from the end of ``fit`` on.
        measurements: All that the evaluators measured.
        timings: Seconds for each part, without interruptions.
        cost: Gradient evaluations, expected over Poisson sampling, and peak memory.
            ``private_evaluations`` were counted where there is ``planned``, which is the plan; in
            earlier records they are the plan. Public ones and those of each stage are as planned.
        environment: Versions and machine.
        artifacts: SHA-256 of each file beside the record.
        error: Why the run failed, or None.
    """

    spec: RunSpec
    status: Status = "started"
    done: list[str] = field(default_factory=list)
    evaluators: dict[str, EvaluatorStatus] = field(default_factory=dict)
    resolved: dict[str, Any] = field(default_factory=dict)
    privacy: dict[str, Any] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str | None] = field(default_factory=dict)
    artifacts: dict[FileName, str] = field(default_factory=dict)
    error: str | None = None

    @property
    def own_public_weights(self) -> bool:
        """Whether the public weights that the run started from, if any, are its seed's own.

        Runs of schema version 1 started from those of seed 0, whatever their own.
        """
        pretrained = self.resolved.get("pretrained")
        return not pretrained or pretrained.get("seed") == self.spec.seed

    def dumps(self) -> str:
        """The record as a JSON document; infinity is the string "inf"."""
        content = to_json(
            {
                "schema_version": self.spec.schema_version,
                "id": self.spec.id,
                **{part.name: _plain(getattr(self, part.name)) for part in fields(self)},
            }
        )
        content["digest"] = digest(content)
        return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, RunSpec | EvaluatorStatus | Measurement):
        return asdict(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value


def digest(content: dict[str, Any]) -> str:
    """SHA-256 of everything in a record but the digest itself, 64 hex digits.

    It reveals edits by hand but no forgery: a forger computes it again.
    """
    return sha256_of({name: part for name, part in content.items() if name != "digest"})


@cache
def document_model() -> type[BaseModel]:
    """The model that ``record.json`` is checked against: the fields of ``RunRecord``, and its id.

    ``privacy`` is any object here: whether it is a certificate is for ``verify`` to say.
    """
    return document(
        "record.json",
        RunRecord,
        later=("evaluators",),
        schema_version=(SchemaVersion, ...),
        id=(str, ...),
        digest=(str, ""),  # one without is read, and rejected as edited
        resolved=(Annotated[Resolved, WrapValidator(_as_read)], ...),
        cost=(Annotated[Cost, WrapValidator(_as_read)], ...),
        timings=(dict[str, Annotated[float, Field(ge=0)]], ...),
    )


def parse_record(file: Path, text: bytes | None = None) -> tuple[RunRecord, dict[str, Any]]:
    """Read a record without checking whether it was edited.

    Args:
        file: The record's file.
        text: Its content, where it was read already or is not written yet.

    Returns:
        The record, and the JSON document that it was read from.

    Raises:
        UserError: It cannot be read, or is not a record of this schema version.
    """
    try:
        text = read_regular(file, LARGEST) if text is None else text
        parsed, content = parse_document(document_model(), text)
    except ValueError as error:
        raise UserError(
            f"{file} is not a record of schema version 1 to {SCHEMA_VERSION}: {error}"
        ) from error
    return RunRecord(
        **{part.name: getattr(parsed, part.name) for part in fields(RunRecord)}
    ), content


def edits(record: RunRecord, content: dict[str, Any]) -> list[str]:
    """Signs that a record was edited by hand, one line each.

    Args:
        record: From ``parse_record``.
        content: The JSON document, from ``parse_record``.
    """
    found = []
    if record.spec.id != content["id"]:
        found.append("its id is not that of its spec")
    if "digest" not in content:
        found.append("there is no digest")
    elif content["digest"] != digest(content):
        found.append("its digest is not that of its content")
    return found


def read_record(file: Path, text: bytes | None = None) -> RunRecord:
    """Read a record.

    Args:
        file: The record's file.
        text: Its content, where it was read already.

    Raises:
        UserError: It cannot be read, is not a record of this schema version, or was edited.
    """
    record, content = parse_record(file, text)
    if found := edits(record, content):
        raise UserError(f"{file} was edited: {', '.join(found)}")
    return record


def find_records(folder: Path) -> Iterator[Path]:
    """All record files below a folder, sorted."""
    yield from sorted(file for file in folder.rglob(RECORD) if file.is_file())
