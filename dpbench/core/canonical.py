"""JSON as records hold it: infinities are strings, and equal content has an equal hash."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any


def to_json(value: Any) -> Any:
    """Replace what JSON lacks: infinities by ``"inf"`` and ``"-inf"``, tuples by lists."""
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value


def sha256_of(content: Any) -> str:
    """SHA-256 of JSON content, whatever the order of its keys; 64 hex digits."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
