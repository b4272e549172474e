from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from dpbench.records.schemas import FOLDER, generate_schemas

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", generate_schemas())
def test_a_schema_in_the_package_is_the_one_that_the_models_give(name: str) -> None:
    shipped = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    assert shipped == generate_schemas()[name], "run python -m dpbench.records.schemas"


def test_the_schemas_are_shipped() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "*.schema.json" in settings["package-data"]["dpbench.records"]
    assert {file.name for file in FOLDER.glob("*.json")} == set(generate_schemas())


def test_a_schema_leaves_nothing_open_that_a_record_must_have() -> None:
    schemas: dict[str, Any] = generate_schemas()
    for name, optional in (
        ("record", {"digest", "evaluators"}),
        ("scores", {"evaluators", "classes"}),
        ("certificate", set()),
    ):
        schema = schemas[f"{name}.schema.json"]
        assert schema["properties"].keys() - set(schema["required"]) == optional
        assert schema["additionalProperties"] is False
