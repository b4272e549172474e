"""The record of scores of samples: a document of its own kind, which claims no privacy.

Torch is not needed to read it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel

from dpbench.core.canonical import sha256_of, to_json
from dpbench.core.errors import UserError
from dpbench.core.metrics import Measurement
from dpbench.core.regular import read_regular
from dpbench.core.strict import STRICT, document, parse_document
from dpbench.records.evaluator_status import EvaluatorStatus
from dpbench.records.run_record import LARGEST, digest

SchemaVersion = Literal[1, 2]
SCHEMA_VERSION: SchemaVersion = 2
Kind = Literal["scores of samples"]
(KIND,) = get_args(Kind)
NotClaimed = Literal["not claimed"]
(NOT_CLAIMED,) = get_args(NotClaimed)
UNKNOWN = "unknown"


@dataclass(frozen=True)
class ScoresSpec:
    """Everything that can change what a score means, and nothing else.

    Attributes:
        name: The user's name for the samples.
        origin: Id of the run that drew them, or ``unknown``.
        samples_hash: SHA-256 of pixels and labels.
        samples: Number of samples.
        dataset: Name of the data set that they imitate.
        dataset_hash: SHA-256 of its decoded arrays.
        profile: Name of the profile.
        seed: Public seed of the evaluators.
        package: dpbench's own distribution and version.
    """

    name: str
    origin: str
    samples_hash: str
    samples: int
    dataset: str
    dataset_hash: str
    profile: str
    seed: int
    package: str

    @property
    def id(self) -> str:
        """SHA-256 of the content, 64 hex digits."""
        return sha256_of(asdict(self))


@dataclass
class Scores:
    """The measurements of one set of samples.

    There is no epsilon: either nothing is known about how the samples were made, or the record of
    the run that drew them states it.

    Attributes:
        spec: The samples and how they are measured.
        done: Names of the evaluators that are done.
        evaluators: How each evaluator ended, by name; empty in scores of schema version 1.
        measurements: All that the evaluators measured.
        timings: Seconds for each evaluator.
        environment: Versions and machine.
        classes: Name of each class by its label, for a folder of images; empty for other data sets,
            whose classes the catalog names, and in scores made before it was kept.
    """

    spec: ScoresSpec
    done: list[str] = field(default_factory=list)
    evaluators: dict[str, EvaluatorStatus] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    environment: dict[str, str | None] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)

    def dumps(self) -> str:
        """The scores as a JSON document."""
        content = to_json(
            {
                "schema_version": SCHEMA_VERSION,
                "kind": KIND,
                "id": self.spec.id,
                "privacy": {"release": NOT_CLAIMED, "epsilon": None},
                **asdict(self),
            }
        )
        content["digest"] = digest(content)
        return json.dumps(content, indent=2, allow_nan=False) + "\n"


class _NoClaim(BaseModel):
    model_config = STRICT

    release: NotClaimed
    epsilon: None


@cache
def document_model() -> type[BaseModel]:
    """The model that scores are checked against: the fields of ``Scores``, kind, id and digest."""
    return document(
        "scores.json",
        Scores,
        later=("evaluators", "classes"),
        schema_version=(SchemaVersion, ...),
        kind=(Kind, ...),
        id=(str, ...),
        privacy=(_NoClaim, ...),
        digest=(str, ...),
    )


def read_scores(file: Path, text: bytes | None = None) -> Scores:
    """Read scores.

    Args:
        file: Their file.
        text: Its content, where it was read already.

    Raises:
        UserError: They cannot be read, are not of this schema version, or were edited.
    """
    try:
        parsed, content = parse_document(document_model(), text or read_regular(file, LARGEST))
    except ValueError as error:
        raise UserError(f"{file} holds no scores of samples: {error}") from error
    scores = Scores(**{part.name: getattr(parsed, part.name) for part in fields(Scores)})
    if content["digest"] != digest(content) or content["id"] != scores.spec.id:
        raise UserError(f"{file} was edited: its digest is not that of its content")
    return scores
