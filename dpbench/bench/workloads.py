"""Networks to time, as the methods announce them; they only ever see random images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import get_args

import torch

from dpbench.api.method import Workload
from dpbench.core.errors import UserError
from dpbench.core.images import Images, Precision
from dpbench.core.registry import entries, load
from dpbench.parallel.device import prepare, resolve_device

PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def workloads() -> dict[str, Workload]:
    """Networks of all methods that can be loaded, by name."""
    found: dict[str, Workload] = {}
    for name in entries("method"):
        try:
            offered = getattr(load("method", name), "workloads", ())
        except UserError:  # a broken plugin disables only itself
            continue
        for each in offered:
            found.setdefault(each.name, each)
    return found


def chosen(names: Sequence[str]) -> list[Workload]:
    """Networks of the given names; the quick ones if none is given.

    Raises:
        UserError: A network is unknown.
    """
    known = workloads()
    check("network", names, known)
    return [known[name] for name in names] or [each for each in known.values() if each.quick]


def chosen_precisions(names: Sequence[str]) -> list[Precision]:
    """Precisions of the given names; all if none is given.

    Raises:
        UserError: A precision is unknown.
    """
    check("precision", names, PRECISIONS)
    return [each for each in PRECISIONS if each in names or not names]


def check(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Check that all names are known.

    Raises:
        UserError: A name is unknown.
    """
    known = list(known)
    for name in names:
        if name not in known:
            raise UserError(f"unknown {what} {name!r}: choose one of {', '.join(known)}")


def device_of(name: str) -> torch.device:
    """The device of a name, computed on as in a run.

    Raises:
        UserError: There is no such device here.
    """
    device = resolve_device(name)
    prepare(device)
    return device


def random_images(workload: Workload, count: int) -> Images:
    """Return ``count`` images of uniform noise."""
    rng = torch.Generator().manual_seed(0)
    shape = (count, *workload.spec.shape)
    return Images(
        torch.randint(256, shape, generator=rng, dtype=torch.uint8),
        torch.arange(count) % workload.classes,
    )
