"""Ranks without torch.distributed: threads of one process, on which twins can be tried."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from dpbench.parallel.ranks import ALONE, Ranks

Result = TypeVar("Result")
_here = threading.local()


class Meeting:
    """A point where ``size`` threads exchange values."""

    def __init__(self, size: int) -> None:
        self.slots: list[Any] = [None] * size
        self.barrier = threading.Barrier(size, timeout=30)

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self.slots[rank] = value
        self.barrier.wait()
        values = list(self.slots)
        self.barrier.wait()
        return values


@dataclass(frozen=True, kw_only=True)
class Threads(Ranks):
    meeting: Meeting

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        everyones = self.meeting.exchange(self.rank, [tensor.clone() for tensor in tensors])
        for tensor, parts in zip(tensors, zip(*everyones, strict=True), strict=True):
            tensor.copy_(torch.stack(parts).sum(0))

    def broadcast(self, content: bytes = b"") -> bytes:
        first: bytes = self.meeting.exchange(self.rank, content)[0]
        return first

    def any(self, here: bool) -> bool:
        return any(self.meeting.exchange(self.rank, here))


def on_ranks(size: int, work: Callable[[Ranks], Result]) -> list[Result]:
    """Run ``work`` on each of several ranks; return their results in order."""
    meeting = Meeting(size)

    def one(rank: int) -> Result:
        _here.ranks = ranks = Threads(rank=rank, size=size, meeting=meeting)
        try:
            return work(ranks)
        except BaseException:
            meeting.barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))


def here() -> Ranks:
    """The rank of the calling thread."""
    return getattr(_here, "ranks", ALONE)
