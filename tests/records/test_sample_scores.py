from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dpbench.core.errors import UserError
from dpbench.core.metrics import Measurement
from dpbench.records.sample_scores import UNKNOWN, Scores, ScoresSpec, read_scores

SPEC = ScoresSpec(
    name="mine",
    origin=UNKNOWN,
    samples_hash="00ff",
    samples=10,
    dataset="digits",
    dataset_hash="11ff",
    profile="smoke",
    seed=0,
    package="dpbench-images 0",
)
SCORES = Scores(SPEC, done=["cas"], measurements=[Measurement("cas", 1.0, "%", True, 10)])


def test_scores_survive_being_written_and_read(tmp_path: Path) -> None:
    file = tmp_path / "scores.json"
    file.write_text(SCORES.dumps())
    assert read_scores(file).dumps() == SCORES.dumps()


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("done", "cas", "done should be a valid array"),
        ("kind", "a record", "kind should be 'scores of samples'"),
        ("schema_version", 3, "schema_version should be 1 or 2"),
        ("privacy", {"release": "valid", "epsilon": None}, "privacy.release should be"),
        ("privacy", {"release": "not claimed", "epsilon": 1.0}, "privacy.epsilon should be"),
        ("invented", 1, "invented is unknown"),
        ("timings", {"cas": 1.0}, "was edited"),
    ],
)
def test_scores_of_another_shape_are_refused_in_a_line_that_names_it(
    tmp_path: Path, part: str, value: Any, message: str
) -> None:
    file = tmp_path / "scores.json"
    file.write_text(json.dumps({**json.loads(SCORES.dumps()), part: value}))
    with pytest.raises(UserError, match=message):
        read_scores(file)
