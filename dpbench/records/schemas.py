"""JSON schemas for checkers without dpbench; ``python -m dpbench.records.schemas`` writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dpbench.core.files import write_text
from dpbench.privacy.certificate import Certificate
from dpbench.records import run_record, sample_scores

FOLDER = Path(__file__).parent


def generate_schemas() -> dict[str, dict[str, Any]]:
    """The schema of each document, by the name of its file in ``FOLDER``."""
    models: dict[str, type[BaseModel]] = {
        "certificate": Certificate,
        "record": run_record.document_model(),
        "scores": sample_scores.document_model(),
    }
    return {
        f"{name}.schema.json": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **model.model_json_schema(),
        }
        for name, model in models.items()
    }


if __name__ == "__main__":
    for name, schema in generate_schemas().items():
        write_text(FOLDER / name, json.dumps(schema, indent=2) + "\n")
