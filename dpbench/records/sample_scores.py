"""The scores of samples as a record of its own kind, which claims no privacy.

Torch is not needed to read it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from dpbench.core.errors import UserError, described
from dpbench.core.metrics import Measurement
from dpbench.records.run_record import digest, to_json

SCHEMA_VERSION = 1
KIND = "scores of samples"
UNKNOWN = "unknown"
NOT_CLAIMED = "not claimed"


@dataclass(frozen=True)
class ScoresSpec:
    """Everything that can change what a score means, and nothing else.

    Attributes:
        name: What the user calls the samples.
        origin: Id of the run that drew them; ``unknown`` for all others.
        samples_hash: SHA-256 of pixels and labels.
        samples: Number of samples.
        dataset: Name of the data set that they imitate.
        dataset_hash: SHA-256 of its decoded arrays.
        profile: Name.
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
        return digest(asdict(self))


@dataclass
class Scores:
    """What was measured of samples.

    There is no epsilon: nothing is known of what made the samples, or a run's own record says it.

    Attributes:
        spec: What was measured, and how.
        done: Names of the evaluators that have measured.
        measurements: The numbers.
        timings: Seconds for each evaluator.
        environment: Versions and machine.
    """

    spec: ScoresSpec
    done: list[str] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)

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


def read(file: Path) -> Scores:
    """Read scores.

    Raises:
        UserError: They cannot be read, are not of this schema version, or were edited.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if (content["kind"], content["schema_version"]) != (KIND, SCHEMA_VERSION):
            raise ValueError(f"{content['kind']!r} of version {content['schema_version']!r}")
        parts = {part.name: content[part.name] for part in fields(Scores)}
        parts["spec"] = ScoresSpec(**content["spec"])
        parts["measurements"] = [Measurement(**each) for each in content["measurements"]]
        edited = content["digest"] != digest(content) or content["id"] != parts["spec"].id
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} holds no scores of samples: {described(error)}") from error
    if edited:
        raise UserError(f"{file} was edited: its digest is not that of its content")
    return Scores(**parts)
