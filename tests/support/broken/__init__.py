"""Deliberately broken twins of the privacy core: each must be caught by the check named for it."""

from tests.support.broken import (
    accounting,
    clipping,
    ledger,
    mechanisms,
    noise,
    ranks,
    runs,
    sampling,
    streams,
    training,
)

__all__ = [
    "accounting",
    "clipping",
    "ledger",
    "mechanisms",
    "noise",
    "ranks",
    "runs",
    "sampling",
    "streams",
    "training",
]
