"""From presets and ``--set name=value`` to a method with all its hyper-parameters."""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from dpbench.api.method import Method, Preset
from dpbench.core.errors import UserError


@dataclass(frozen=True)
class Resolved:
    """A method with all its hyper-parameters.

    Attributes:
        method: The instance.
        arguments: Every field and its value.
        by_hand: Names of the fields that were given by hand.
        source: Where the other values come from.
    """

    method: Method
    arguments: Mapping[str, Any]
    by_hand: tuple[str, ...]
    source: str


def resolve(
    kind: type[Method],
    name: str,
    profile: str,
    dataset: str,
    epsilon: float,
    assignments: Iterable[str],
) -> Resolved:
    """Instantiate a method for a run.

    Args:
        kind: The method's class.
        name: Its CLI name.
        profile: Name of the profile.
        dataset: Name of the data set.
        epsilon: Of the budget.
        assignments: ``name=value``, parsed against the field's type; they win over the preset.

    Raises:
        UserError: An unknown name, a value that does not parse, or no preset for this run.
    """
    hints = get_type_hints(kind)
    fields = hyperparameters(kind)
    by_hand: dict[str, Any] = {}
    for assignment in assignments:
        field, equals, text = assignment.partition("=")
        if not equals:
            raise UserError(f"--set takes name=value, got {assignment!r}")
        if field not in fields:
            raise UserError(f"{name} has no hyper-parameter {field!r}.{_suggest(field, fields)}")
        by_hand[field] = parse(text, hints[field], f"--set {field}")
    preset = _preset(kind, name, profile, dataset, epsilon)
    method = kind(**{**preset.values, **by_hand})
    arguments = {field: getattr(method, field) for field in fields}
    return Resolved(method, arguments, tuple(by_hand), preset.source)


def hyperparameters(kind: type[Method]) -> list[str]:
    """The names that a method's ``--set`` takes."""
    return [field.name for field in dataclasses.fields(kind) if field.init]  # type: ignore[arg-type]


def _preset(kind: type[Method], name: str, profile: str, dataset: str, epsilon: float) -> Preset:
    for preset in kind.presets:
        if preset.fits(profile, dataset, epsilon):
            return preset
    if not kind.presets:
        return Preset(profile, "the method's defaults")
    known = sorted(
        {f"{p.profile} ({', '.join(p.datasets) or 'any data set'})" for p in kind.presets}
    )
    raise UserError(
        f"{name} has no preset for {dataset} at profile {profile}: there are {'; '.join(known)}"
    )


def _suggest(word: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f" Did you mean {close[0]!r}?"
    return f" It has {', '.join(known)}." if known else " It has none."


def parse(text: str, annotation: Any, where: str) -> Any:
    """Parse text as a value of a field's type.

    Args:
        text: What the user wrote.
        annotation: ``int``, ``float``, ``bool``, ``str``, a Literal, ``tuple[X, ...]`` or
            ``X | None``.
        where: Named in the error.

    Raises:
        UserError: It does not parse.
    """
    origin = get_origin(annotation)
    if origin in (types.UnionType, Union):  # X | None and Optional[X]
        if text.lower() == "none":
            return None
        rest = [part for part in get_args(annotation) if part is not type(None)]
        return parse(text, rest[0], where)
    if origin is Literal:
        choices = {str(choice): choice for choice in get_args(annotation)}
        if text not in choices:
            raise UserError(f"{where} takes one of {', '.join(choices)}, got {text!r}")
        return choices[text]
    if origin is tuple:
        item = get_args(annotation)[0]
        return tuple(
            parse(part.strip(), item, where) for part in text.strip("()").split(",") if part
        )
    if annotation is bool:
        if text.lower() not in ("true", "false"):
            raise UserError(f"{where} takes true or false, got {text!r}")
        return text.lower() == "true"
    try:
        value = annotation(text)
        if value != value:  # NaN compares false with every limit, so no check would catch it
            raise ValueError
        return value
    except (ValueError, TypeError):
        what = {int: "a whole number", float: "a number"}.get(annotation, str(annotation))
        raise UserError(f"{where} takes {what}, got {text!r}") from None
