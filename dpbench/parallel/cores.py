"""Parallel work on the CPU's cores: single-threaded tasks in place of multi-threaded operators.

The operators of small networks are too short to be split over threads. If another process occupies
a core, threads that wait for each other inside every operator can be twenty times slower than one
thread alone.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


_sharing = 1


def core_count() -> int:
    """CPU cores for this process: those it may use, divided by the ranks on this machine."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, cores // _sharing)


def sharing() -> int:
    """Number of the run's processes on this machine."""
    return _sharing


def share_cores(processes: int) -> None:
    """Divide the cores of this machine by ``processes``, the run's processes on it."""
    global _sharing
    _sharing = processes
    _pool.cache_clear()


@functools.cache
def _pool() -> ThreadPoolExecutor:
    _keep_freed_memory()
    return ThreadPoolExecutor(core_count(), initializer=lambda: torch.set_num_threads(1))


def _keep_freed_memory() -> None:
    """Make glibc reuse freed memory instead of returning it to the system.

    A step allocates and frees hundreds of megabytes; mapping their pages anew takes up to a fifth
    of its time. Other C libraries have no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_threshold, arena_max = -1, -3, -8
        for option, value in ((trim_threshold, 2**31 - 1), (mmap_threshold, 2**30), (arena_max, 1)):
            mallopt(option, value)


# a forked child inherits the pool but none of its threads
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


def map_on_cores(
    function: Callable[[Item], Result], items: Iterable[Item], device: torch.device
) -> Iterator[Result]:
    """Apply ``function`` to each item, on all cores if ``device`` is the CPU.

    Results are yielded in order and do not depend on the number of cores. Items are consumed on the
    calling thread, only a few ahead of the results, so that memory does not grow with their number.
    """
    if device.type != "cpu":
        yield from map(function, items)
        return
    running: deque[Future[Result]] = deque()
    try:
        for item in items:
            running.append(_pool().submit(function, item))
            if len(running) > core_count():
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            future.cancel()
