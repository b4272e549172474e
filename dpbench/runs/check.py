"""Whether a method learns from private images through its mechanisms alone: by neighbour replay."""

from __future__ import annotations

import contextlib
import importlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dpbench.core.cache import user_cache
from dpbench.core.errors import RunFailed, UserError
from dpbench.core.progress import Progress
from dpbench.parallel.device import prepare
from dpbench.parallel.forked import in_fork
from dpbench.privacy.ledger import PrivacyLedger
from dpbench.privacy.replay.handle import Comparison, same_or_not
from dpbench.privacy.replay.neighbours import RESUMED, Neighbour, neighbours
from dpbench.runs.execute import open_images
from dpbench.runs.replayed_fit import CPU, OF_OPTIMIZERS, Fitted, Subject, fit
from dpbench.runs.request import RunRequest, plan

ANOTHER = 100  # number of one more fit on D


def check(request: RunRequest, data_root: Path | None, progress: Progress) -> list[Comparison]:
    """Replay a registered method on neighbours of a data set.

    Args:
        request: The run whose method is replayed, without noise and on the CPU.
        data_root: Where to look for data first.
        progress: Receives progress updates.

    Raises:
        UserError: A request that cannot work, or a method that is not private.
        RunFailed: The method breaks on D itself, or is not deterministic.
    """
    planned = plan(request)
    if not planned.budget.private:
        raise UserError(
            f"{request.method} has no privacy claim to check: epsilon is inf"
            if planned.resolved.method.private
            else f"{request.method} is not private: it reads the images themselves, so there is "
            "nothing to check"
        )
    dataset, public = open_images(planned, data_root, progress)
    subject = Subject.of(planned, public, user_cache(progress.note))
    return replay(subject, neighbours(dataset.splits.train), progress)


def replay(subject: Subject, sets: Sequence[Neighbour], progress: Progress) -> list[Comparison]:
    """Fit a method on D, and on other sets with D's releases held fixed.

    Each fit has a process of its own, so that nothing that one keeps in memory reaches the next.

    Args:
        subject: The method.
        sets: D, then the others.
        progress: Receives progress updates.

    Returns:
        Comparisons of D itself, then for each set every release against D's, what surrounds the
        releases, and what comes out of the method.

    Raises:
        RunFailed: The method breaks on D itself, or is not deterministic.
    """
    prepare(CPU)
    _account_for(subject)
    original, *others = sets
    with progress.task("replaying", len(sets), "fits") as task:
        try:
            on_d = _forked(subject, original, 0)
        except RunFailed as error:
            raise RunFailed(f"the method fails before anything is changed: {error}") from error
        if on_d.optimizes:
            importlib.import_module(OF_OPTIMIZERS)  # here, or each process would do so again
        task.advance(1, original.name)
        as_planned = same_or_not("events of the plan", original.name, on_d.as_planned)
        comparisons = [*on_d.comparisons, as_planned]
        for number, neighbour in enumerate(others, 1):
            try:
                fitted = _forked(subject, neighbour, number, on_d)
            except (RunFailed, UserError) as error:
                found = [same_or_not(f"fit: {error}", neighbour.name, False)]
            else:
                found = [*fitted.comparisons, *_same(neighbour.name, fitted, on_d)]
            if neighbour.interrupted and not all(each.ok for each in found):
                _check_deterministic(subject, original, on_d)
            comparisons += found
            task.advance(1, neighbour.name)
    return comparisons


def _account_for(subject: Subject) -> None:
    """Compute what accounting caches, before the processes that would each compute it again."""
    ledger = PrivacyLedger(subject.budget)
    with contextlib.suppress(Exception):  # the fit on D says what is wrong
        for event in subject.method.plan(subject.info, subject.budget).events:
            ledger.spend(event)


def _same(name: str, fitted: Fitted, on_d: Fitted) -> list[Comparison]:
    """Comparisons of everything that comes out of a fit."""
    outputs = {**on_d.outputs, **fitted.outputs}
    return [
        same_or_not(what, name, fitted.outputs.get(what) == on_d.outputs.get(what))
        for what in outputs
    ]


def _forked(
    subject: Subject, neighbour: Neighbour, number: int, on_d: Fitted | None = None
) -> Fitted:
    """Fit in a process of its own, or in two if it is to be interrupted."""
    engines = None if on_d is None else on_d.engines
    held = None if neighbour.interrupted else on_d
    with tempfile.TemporaryDirectory() as name:

        def once(interrupt_at: int | None = None) -> Fitted | None:
            return fit(subject, neighbour, Path(name), number, held, interrupt_at, engines)

        if neighbour.interrupted and on_d is not None:
            half = len(on_d.releases) // 2
            in_fork(lambda: once(half))
        fitted = in_fork(once)
    if fitted is None:
        raise RunFailed("it interrupts itself")
    return fitted


def _check_deterministic(subject: Subject, original: Neighbour, on_d: Fitted) -> None:
    """Fit on D again, without an interruption.

    Raises:
        RunFailed: Something else comes out of it.
    """
    again = _same(original.name, _forked(subject, original, ANOTHER), on_d)
    differing = ", ".join(each.purpose for each in again if not each.ok)
    if differing:
        raise RunFailed(
            "the method is not deterministic, so that nothing can be compared: two fits on the "
            f"same images differ in {differing}; draw from run.streams, not from a global "
            "generator or the clock"
        )


def verdict(method: str, comparisons: Sequence[Comparison]) -> str:
    """What failed, in one sentence; empty if nothing did."""
    failed = [each for each in comparisons if not each.ok]
    if not failed:
        return ""
    why = "rows marked NO depend on a private image by more than is accounted for"
    if all(each.neighbour == RESUMED for each in failed):
        why = "interrupted and resumed, it gives another result than in one go"
    return f"{method} failed {len(failed)} of {len(comparisons)} comparisons: {why}"
