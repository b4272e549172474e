"""Resolve presets and ``--set name=value`` to a method with all its hyper-parameters."""

from __future__ import annotations

import dataclasses
import difflib
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from dpbench.api.method import Departure, Method, Preset
from dpbench.api.profiles import PROFILES
from dpbench.core.errors import UserError

LARGEST_WHOLE = 10**8
MOST_ITEMS = 1000
_UNIONS = (Union, UnionType)  # Optional[X] and X | None
_DESCRIPTIONS = {int: "a whole number", float: "a number", bool: "true or false"}
_WORDS = {"none": None, "true": True, "false": False}


@dataclass(frozen=True)
class Resolved:
    """A method with all its hyper-parameters.

    Attributes:
        method: The instance.
        arguments: Every field and its value.
        by_hand: Names of the fields that the user set.
        from_preset: Names of the fields whose values are the preset's; the others have defaults, or
            the published values if those were asked for.
        source: Source of the preset.
        departures: Ingredients of ours that the method's paper does not have.
    """

    method: Method
    arguments: Mapping[str, Any]
    by_hand: tuple[str, ...]
    from_preset: tuple[str, ...]
    source: str
    departures: tuple[str, ...] = ()


def resolve(
    kind: type[Method],
    name: str,
    profile: str,
    dataset: str,
    epsilon: float,
    assignments: Iterable[str],
    published: bool = False,
) -> Resolved:
    """Instantiate a method for a run.

    Args:
        kind: The method's class.
        name: Its CLI name.
        profile: Name of the profile.
        dataset: Name of the data set.
        epsilon: The privacy budget's epsilon.
        assignments: ``name=value``, parsed against the field's type; they win over the preset.
        published: Leave out the ingredients of ours that the preset brings into a published method.

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
    ours: tuple[Departure, ...] = getattr(kind, "departures", ())
    values = dict(preset.values)
    if published:
        brought_in = [each for each in ours if each.ours(values.get(each.field))]
        values |= {each.field: each.published for each in brought_in}
    method = kind(**{**values, **by_hand})
    arguments = {field: getattr(method, field) for field in fields}
    departures = dict.fromkeys(each.what for each in ours if each.ours(arguments.get(each.field)))
    from_preset = tuple(
        field
        for field, value in preset.values.items()
        if values[field] == value and field not in by_hand
    )
    return Resolved(
        method, arguments, tuple(by_hand), from_preset, preset.source, tuple(departures)
    )


def hyperparameters(kind: type[Method]) -> list[str]:
    """The names that a method's ``--set`` takes."""
    return [field.name for field in dataclasses.fields(kind) if field.init]  # type: ignore[arg-type]


def _preset(kind: type[Method], name: str, profile: str, dataset: str, epsilon: float) -> Preset:
    start = PROFILES[profile].presets or profile
    for preset in kind.presets:
        if preset.fits(start, dataset, epsilon):
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
        annotation: ``int``, ``float``, ``bool``, ``str``, a Literal, ``tuple[X, ...]``, or a union
            of these and None.
        where: What the error message names.

    Raises:
        UserError: The text is no such value, or a whole number too large for any purpose.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    for value in _readings(text):
        with suppress(ValidationError):
            accepted = adapter.validate_python(value, strict=True)
            if isinstance(accepted, int) and abs(accepted) > LARGEST_WHOLE:
                raise UserError(f"{where} takes at most {LARGEST_WHOLE:,}, got {text[:40]}")
            return accepted
    kinds = get_args(annotation) if get_origin(annotation) in _UNIONS else (annotation,)
    for kind in kinds:
        if get_origin(kind) is tuple:
            item, parts = get_args(kind)[0], text.strip("()").split(",")
            if len(parts) > MOST_ITEMS:
                raise UserError(f"{where} takes at most {MOST_ITEMS} values, got {len(parts):,}")
            return tuple(parse(part.strip(), item, where) for part in parts if part)
    raise UserError(f"{where} takes {_wanted(kinds)}, got {reprlib.repr(text)}")


def _readings(text: str) -> Iterator[Any]:
    """Everything that text can stand for by itself; the field's type decides between them."""
    word = text.lower()
    if word in _WORDS:
        yield _WORDS[word]
    for number in (int, float):
        with suppress(ValueError):
            if (value := number(text)) == value:  # NaN would pass every check of a limit
                yield value
    yield text


def _wanted(kinds: Iterable[Any]) -> str:
    words: list[str] = []
    choices: list[str] = []
    for kind in kinds:
        if get_origin(kind) is Literal:
            choices += map(str, get_args(kind))
        elif kind is not NoneType:
            words.append(_DESCRIPTIONS.get(kind, str(kind)))
    if choices:
        words.append(f"one of {', '.join(choices)}")
    return " or ".join(words)
