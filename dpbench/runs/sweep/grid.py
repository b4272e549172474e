"""Grids of runs, all of which are planned before the first one starts."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dpbench.api.sources import PublicSource
from dpbench.core.errors import UserError
from dpbench.core.progress import Progress
from dpbench.core.registry import load as load_entry
from dpbench.data.load import Dataset, load
from dpbench.records.run_record import RECORD, RunRecord, RunSpec, read_record
from dpbench.runs.evaluation import check_resources
from dpbench.runs.hyperparameters import hyperparameters
from dpbench.runs.identity import spec_of
from dpbench.runs.public_images import open_public
from dpbench.runs.request import PUBLIC_FIELD, PlannedRun, RunRequest, plan

State = Literal["new", "resumed", "complete"]
MOST_RUNS = 5_000  # of a sweep; planning takes time and memory for each


@dataclass(frozen=True)
class Grid:
    """Runs of every method on every data set for every seed, and every epsilon if it is private.

    Attributes:
        methods: CLI names.
        datasets: CLI names.
        epsilons: Of the private methods; the others have none.
        seeds: Public seeds.
        common: All else that is asked of a run. A setting goes to the methods that have it, and so
            do public images.
    """

    methods: tuple[str, ...]
    datasets: tuple[str, ...]
    epsilons: tuple[float, ...]
    seeds: tuple[int, ...]
    common: RunRequest


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
        planned: What it will do.
        spec: What its record says, or will say, that was asked for.
        folder: Where it is, or will be.
        earlier: What an earlier run left there.
    """

    planned: PlannedRun
    spec: RunSpec
    folder: Path
    earlier: RunRecord | None

    @property
    def state(self) -> State:
        """What is to be done about it."""
        if self.earlier is None:
            return "new"
        return "complete" if self.planned.completed(self.earlier) else "resumed"

    def __str__(self) -> str:
        """The cell as people call it."""
        return _title(self.planned.request)


def parse_words(texts: Iterable[str]) -> tuple[str, ...]:
    """The parts of comma-separated texts, without repetitions."""
    parts = (part.strip() for text in texts for part in text.split(","))
    return tuple(dict.fromkeys(part for part in parts if part))


def parse_numbers(texts: Iterable[str]) -> tuple[float, ...]:
    """Comma-separated numbers.

    Raises:
        UserError: A name or number is not valid.
    """
    try:
        return tuple(float(word) for word in parse_words(texts))
    except ValueError as error:
        raise UserError(f"--eps takes numbers such as 1,10: {error}") from None


def parse_seeds(texts: Iterable[str]) -> tuple[int, ...]:
    """Comma-separated whole numbers and ranges: ``0-2`` is 0, 1 and 2.

    Raises:
        UserError: One is neither, or they are more than a sweep may have.
    """
    found: list[int] = []
    for word in parse_words(texts):
        # of at most 19 digits, as seeds have
        ends = re.fullmatch(r"(-?[0-9]{1,19})(?:-([0-9]{1,19}))?", word)
        if ends is None or int(ends[2] or ends[1]) < int(ends[1]):
            raise UserError(
                f"--seeds takes whole numbers and ranges such as 0,1 or 0-2, got {word[:40]!r}"
            )
        seeds = range(int(ends[1]), int(ends[2] or ends[1]) + 1)
        if seeds.stop - seeds.start > MOST_RUNS - len(found):  # before they are expanded
            raise UserError(f"--seeds are more than {MOST_RUNS:,}: sweep over fewer at a time")
        found += seeds
    return tuple(found)


def plan_grid(
    grid: Grid, runs_dir: Path, data_root: Path | None, progress: Progress
) -> tuple[list[Cell], list[str]]:
    """Plan every run of a grid, and find what is there of it already.

    Seeds change last, so that a sweep that was stopped has every method once.

    Args:
        grid: What to run.
        runs_dir: Where runs are kept.
        data_root: Where to look for data first.
        progress: Receives progress updates.

    Returns:
        The cells, each once, and what is wrong with those that are missing, one line each.
    """
    mistakes = _Mistakes()
    return _cells(_requests(grid, mistakes), mistakes, runs_dir, data_root, progress)


def plan_cells(
    requests: Iterable[RunRequest], runs_dir: Path, data_root: Path | None, progress: Progress
) -> tuple[list[Cell], list[str]]:
    """Plan runs that make up no grid, as ``plan_grid`` does.

    Args:
        requests: What to run, in order.
        runs_dir: As for ``plan_grid``.
        data_root: As for ``plan_grid``.
        progress: As for ``plan_grid``.

    Returns:
        As ``plan_grid``.
    """
    return _cells(list(dict.fromkeys(requests)), _Mistakes(), runs_dir, data_root, progress)


def _cells(
    requests: Sequence[RunRequest],
    mistakes: _Mistakes,
    runs_dir: Path,
    data_root: Path | None,
    progress: Progress,
) -> tuple[list[Cell], list[str]]:
    """Each data set is loaded once, for its content is part of a run's id."""
    planned = _planned(requests, mistakes, progress)
    datasets: dict[str, Dataset] = {}
    # as they were asked for: two folders of images may have one name in records
    for name in dict.fromkeys(each.request.dataset for each in planned):
        with mistakes.kept():
            datasets[name] = load(name, data_root, progress)
    opened: dict[tuple[str, str], PublicSource | None] = {}
    found = []
    for each in planned:
        name = each.request.dataset
        if name in datasets:
            with mistakes.kept():
                dataset, images = datasets[name], (each.plan.public, name)
                if images not in opened:
                    opened[images] = open_public(
                        each.plan.public,
                        each.info,
                        dataset.splits.train,
                        each.request.seed,
                        data_root,
                        progress,
                    )
                spec = spec_of(each, dataset.content_hash, opened[images])
                folder = runs_dir / spec.folder
                found.append(Cell(each, spec, folder, earlier_record(folder)))
    return found, mistakes.lines()


def _planned(
    requests: Sequence[RunRequest], mistakes: _Mistakes, progress: Progress
) -> list[PlannedRun]:
    planned = []
    with progress.task("planning", len(requests), "runs") as task:
        for request in requests:
            with mistakes.kept(_title(request)):
                each = plan(request)
                planned.append(each)
                check_resources(each.evaluators, each.info.spec)
            task.advance(1)
    return planned


def _requests(grid: Grid, mistakes: _Mistakes) -> list[RunRequest]:
    """The runs of a grid, each once."""
    kinds = {}
    for name in grid.methods:
        with mistakes.kept():
            kinds[name] = load_entry("method", name)
    for option, given in (
        ("--methods", grid.methods),
        ("--datasets", grid.datasets),
        ("--eps", grid.epsilons),
        ("--seeds", grid.seeds),
    ):
        if not given:
            mistakes.add(f"{option} is empty: give one or more, separated by commas")
    for_each = {name: grid.epsilons if kinds[name].private else (None,) for name in kinds}
    runs = len(grid.seeds) * len(grid.datasets) * sum(map(len, for_each.values()))
    if runs > MOST_RUNS:
        mistakes.add(f"these are {runs:,} runs; a sweep has at most {MOST_RUNS:,}: make several")
        return []
    fields = {name: hyperparameters(kind) for name, kind in kinds.items()}
    settings = {assignment: assignment.partition("=")[0] for assignment in grid.common.settings}
    for field in settings.values():
        # a method that could not be loaded might have it
        if len(kinds) == len(grid.methods) and not any(field in each for each in fields.values()):
            mistakes.add(f"--set {field}: no method of this sweep has that hyper-parameter")
    public = grid.common.public
    if public is not None and not any(PUBLIC_FIELD in each for each in fields.values()):
        mistakes.add(f"--public {public}: no method of this sweep pre-trains on public images")
    return list(
        dict.fromkeys(
            replace(
                grid.common,
                method=name,
                dataset=dataset,
                epsilon=epsilon,
                seed=seed,
                settings=tuple(text for text, field in settings.items() if field in fields[name]),
                public=public if PUBLIC_FIELD in fields[name] else None,
            )
            for seed, dataset, name in itertools.product(grid.seeds, grid.datasets, kinds)
            for epsilon in for_each[name]
        )
    )


class _Mistakes:
    """Collects users' mistakes; what is wrong with many cells alike is one line."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def add(self, message: str, *where: str) -> None:
        self._found.setdefault(message, []).extend(where)

    @contextmanager
    def kept(self, *where: str) -> Iterator[None]:
        """Keep a ``UserError`` and go on."""
        try:
            yield
        except UserError as error:
            self.add(str(error), *where)

    def lines(self) -> list[str]:
        return [
            message + (f" ({where[0]}{_others(len(where) - 1)})" if where else "")
            for message, where in self._found.items()
        ]


def _others(count: int) -> str:
    return f", and {count} more" if count else ""


def _title(request: RunRequest) -> str:
    epsilon = "" if request.epsilon is None else f", epsilon {request.epsilon:g}"
    return f"{request.method} on {request.dataset}{epsilon}, seed {request.seed}"


def earlier_record(folder: Path) -> RunRecord | None:
    """What an earlier run left in a folder.

    Raises:
        UserError: It cannot be read.
    """
    file = folder / RECORD
    if not file.exists():
        return None
    try:
        return read_record(file)
    except UserError as error:
        raise UserError(f"{error}; remove it, and the run starts anew") from error
