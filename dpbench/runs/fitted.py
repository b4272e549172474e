"""What a method fitted, as the bytes that a run stores, and rebuilt from them."""

from __future__ import annotations

import torch

from dpbench.api.method import Method, Predictor, Sampler
from dpbench.core.errors import RunFailed, described
from dpbench.core.state import from_bytes, plain, to_bytes
from dpbench.privacy.mechanisms import PrivateSetInfo


def stored(fitted: Sampler | Predictor) -> bytes:
    """What is stored of a sampler or predictor: the tensors and plain values of its ``state``.

    Raises:
        RunFailed: It has no ``state``, or one that holds anything else.
    """
    kind = type(fitted).__name__
    if not callable(getattr(fitted, "state", None)):
        raise RunFailed(
            f"{kind}, which fit returned, has no method state() that gives the tensors and plain "
            "values to store it by"
        )
    try:
        return to_bytes(plain(fitted.state()))
    except TypeError as error:
        raise RunFailed(f"{kind}, which fit returned, cannot be stored: {error}") from error


def rebuilt(
    method: Method, content: bytes, info: PrivateSetInfo, device: torch.device
) -> Sampler | Predictor:
    """Rebuild what ``stored`` gave the bytes of.

    Args:
        method: The method that fitted it.
        content: From ``stored``.
        info: What is public about the private images.
        device: Device to compute on.

    Raises:
        ValueError: The bytes are something else, such as the pickled object of an older version.
        RunFailed: The method cannot rebuild it.
    """
    try:
        state = plain(from_bytes(content))
    except TypeError as error:
        raise ValueError(str(error)) from error
    try:
        return method.restore(state, info, device)
    except Exception as error:  # a method is anybody's code
        raise RunFailed(
            f"restore() cannot rebuild what state() gave: {described(error)}"
        ) from error
