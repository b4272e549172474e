"""States: nested dicts and lists of tensors and plain values, stored and loaded without code."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dpbench.core.errors import described

# Nested: values are tensors, None, bools, ints, floats and texts, and dicts (by texts), lists and
# tuples of them.
State = Mapping[str, Any]


def plain(value: object, where: str = "state") -> Any:
    """Copy a state, with each tensor on the CPU and cut out of what it is a view of.

    Args:
        value: The state, or a part of it.
        where: The part, for the message.

    Returns:
        The same in dicts, lists, tuples and tensors alone, none of them of a subclass.

    Raises:
        TypeError: It holds something else; the message says what and where.
    """
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if isinstance(value, Tensor) and kind in (Tensor, nn.Parameter):
        if value.layout == torch.strided and not value.is_quantized and not value.is_meta:
            return value.detach().cpu().clone(memory_format=torch.contiguous_format)
    elif isinstance(value, list | tuple) and kind in (list, tuple):
        return kind([plain(part, f"{where}[{number}]") for number, part in enumerate(value)])
    elif isinstance(value, dict) and kind in (dict, OrderedDict):  # modules give the latter
        for name in value:
            if type(name) is not str:
                raise TypeError(f"{where} has {name!r} among its names, which is no text")
        return {name: plain(part, f"{where}[{name!r}]") for name, part in value.items()}
    raise TypeError(
        f"{where} is of type {kind.__name__}, and a state is made of tensors, plain values, and "
        "dicts and lists of them"
    )


def to_bytes(content: object) -> bytes:
    """Content in the format of ``torch.save``."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def from_bytes(content: bytes) -> Any:
    """Read on the CPU what ``to_bytes`` gave, and no object of a class: nothing is executed.

    Raises:
        ValueError: It holds anything else, or is damaged.
    """
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # by the damage: UnpicklingError, RuntimeError, EOFError, KeyError
        raise ValueError(described(error)) from error
