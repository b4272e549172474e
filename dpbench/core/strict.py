"""Documents in JSON against the types of what they hold: strict, closed, one line an error."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator
from dataclasses import fields
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    create_model,
)
from pydantic_core import from_json

# A string is no number, a bool no integer, NaN no value, and a name that is not declared an error.
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is unknown",
    "unexpected_keyword_argument": "is unknown",
}
LARGEST = 2**64  # what is larger fits no type that numbers are computed with
LONGEST_LINE = 500  # characters of a complaint, whatever a document has names of
_Model = TypeVar("_Model", bound=BaseModel)


def _unchanged(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    if value == "inf":
        return float("inf")
    check(value)
    return value  # an integer stays one, so that what was read is written again byte for byte


NonNegative = Annotated[float, Field(ge=0)]
# JSON has no infinity: records say "inf".
OrInfinity = Annotated[
    float,
    Field(ge=0, allow_inf_nan=True),
    WrapValidator(_unchanged, json_schema_input_type=NonNegative | Literal["inf"]),
]


def document(name: str, kind: type, /, later: tuple[str, ...] = (), **more: Any) -> type[BaseModel]:
    """Make the model of a JSON object: a dataclass's fields, and others before them.

    Args:
        name: The model's name in its JSON schema.
        kind: A dataclass; other defaults of it are not used, since a document leaves nothing out.
        later: Fields that earlier schema versions do not have; their defaults are used.
        more: Fields of the document alone, or of narrower types than the dataclass says: their
            types and defaults, as ``create_model`` takes them.
    """
    hints = get_type_hints(kind, include_extras=True)
    own: dict[str, Any] = {each.name: (hints[each.name], ...) for each in fields(kind)}
    for each in later:
        own[each] = (hints[each], Field(default_factory=dict))
    model: type[BaseModel] = create_model(name, __config__=STRICT, **{**more, **own, **more})
    return model


def parse_document(model: type[_Model], text: bytes) -> tuple[_Model, Any]:
    """Check a document and give it both as the model and as plain JSON content.

    Raises:
        ValueError: It is no JSON, or not as the model says: one line that names the first field.
    """
    content = parse_json(text)
    try:
        return model.model_validate_json(text), content
    except ValidationError as error:
        raise ValueError(next(violations(error))) from None


def parse_json(text: bytes) -> Any:
    """Parse JSON from anybody: nested at most 200 deep, and without numbers that nothing can hold.

    Raises:
        ValueError: It is no such JSON.
    """
    content = from_json(text, allow_inf_nan=False)
    _check_numbers(content)
    return content


def _check_numbers(value: Any) -> None:
    if isinstance(value, dict):
        for each in value.values():
            _check_numbers(each)
    elif isinstance(value, list):
        for each in value:
            _check_numbers(each)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number in it is infinite")
    elif isinstance(value, int) and abs(value) >= LARGEST:
        raise ValueError("an integer in it has more than 64 bits")


def violations(error: ValidationError, *place: str) -> Iterator[str]:
    """One line for each part that is not as its type says.

    Args:
        error: From pydantic.
        place: Names to put before that of the part.
    """
    seen = set()
    for each in error.errors(include_url=False):
        # a union of numbers complains once for each of its members
        path = [*place, *(str(part) for part in each["loc"] if part not in ("int", "float"))]
        name = ".".join(path)
        if name not in seen:
            seen.add(name)
            line = " ".join(f"{name} {_explained(each)}".split())
            yield line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}..."


def _explained(error: Any) -> str:
    kind, message = error["type"], error["msg"].removeprefix("Value error, ")
    if kind in ("value_error", "json_invalid"):
        return str(message)
    if kind in _WORDS:
        return _WORDS[kind]
    should = message.find("should ")  # what comes before is "Input", "List" or "String"
    return f"{message[max(should, 0) :]}, got {reprlib.repr(error['input'])}"
