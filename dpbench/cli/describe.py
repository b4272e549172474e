"""A method or the metrics in full, for ``dpbench list``: their code is imported."""

from __future__ import annotations

import re
from dataclasses import MISSING, Field, fields
from typing import Any

from dpbench.core.registry import entries, load

# an attribute in a docstring in the style of Google, up to the next one
_ATTRIBUTE = re.compile(r"^        (\w+): (.+(?:\n {12}.+)*)", re.MULTILINE)


def describe_method(name: str) -> dict[str, Any]:
    """A method with its hyper-parameters and presets.

    Raises:
        UserError: The name is unknown, or the method is broken.
    """
    method = load("method", name)
    said = {
        key: " ".join(text.replace("``", "").split())
        for each in reversed(method.__mro__)
        for key, text in _ATTRIBUTE.findall(each.__doc__ or "")
    }
    return {
        "name": name,
        "summary": method.summary,
        "paper": getattr(method, "paper", ""),
        "requires": getattr(method, "requires", ""),
        "private": method.private,
        "hyper_parameters": [
            {
                "name": each.name,
                "type": str(each.type),
                "default": _default(each),
                "description": said.get(each.name, ""),
            }
            for each in fields(method)
            if each.init
        ],
        "presets": [
            {
                "profile": preset.profile,
                "datasets": list(preset.datasets),
                "epsilons": list(preset.epsilons),
                "source": preset.source,
                "values": dict(preset.values),
            }
            for preset in method.presets
        ],
    }


def describe_metrics(evaluator: str | None = None) -> list[dict[str, Any]]:
    """The metrics of all evaluators, or of one.

    Raises:
        UserError: The name is unknown, or an evaluator is broken.
    """
    return [
        {
            "name": metric.name,
            "evaluator": name,
            "unit": metric.unit,
            "better": "higher" if metric.higher_is_better else "lower",
            "kind": metric.kind,
            "description": metric.description,
        }
        for name in ([evaluator] if evaluator else entries("evaluator"))
        for metric in load("evaluator", name).metrics
    ]


def _default(each: Field[Any]) -> Any:
    default = each.default if each.default_factory is MISSING else each.default_factory()
    return None if default is MISSING else default
