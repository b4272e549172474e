"""One run: fit, sample, evaluate, resumable at every boundary."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dpbench.api.sources import NO_PUBLIC, PublicSource
from dpbench.core.errors import (
    RunFailed,
    UserError,
    contained,
    described,
    out_of_memory,
    out_of_room,
    were_done,
)
from dpbench.core.files import cache_path, check_writable
from dpbench.core.progress import Progress, Silent
from dpbench.core.registry import load as load_entry
from dpbench.data.load import Dataset, load
from dpbench.parallel.cores import share_cores
from dpbench.parallel.device import prepare
from dpbench.privacy.clipping.selection import Executions
from dpbench.privacy.ledger import PrivacyLedger
from dpbench.records.run_record import RECORD, RunRecord
from dpbench.runs.evaluation import check_resources
from dpbench.runs.fitting import fit_method, run_context
from dpbench.runs.folder import locked_folder, open_record
from dpbench.runs.identity import spec_of
from dpbench.runs.public_images import open_public
from dpbench.runs.request import PlannedRun
from dpbench.runs.steps import NOTHING_TO_FIT, RunSteps
from dpbench.runs.training_folder import may_have_released


def execute(
    planned: PlannedRun,
    progress: Progress,
    runs_dir: Path = Path("runs"),
    out: Path | None = None,
    data_root: Path | None = None,
    overwrite: bool = False,
    remeasure: tuple[str, ...] | None = None,
    debug: bool = False,
) -> tuple[RunRecord, Path]:
    """Run what was planned, or what is left of it; the other ranks, if any, ``assist``.

    Args:
        planned: From ``plan``, on the first rank.
        progress: Receives progress updates.
        runs_dir: The run's folder is made below it by data set, method and id.
        out: The run's folder itself, instead.
        data_root: Where to look for data first.
        overwrite: Discard what an earlier run left in the folder.
        remeasure: Evaluators that measure its samples again, whatever they have measured; None
            for none.
        debug: Let an evaluator's error end the run instead of becoming a row with a reason.

    Returns:
        The complete record and the folder it is in.

    Raises:
        UserError: Bad data, an unusable folder, a folder with another run in it, or none to measure
            again.
        RunFailed: The method broke; the record says so.
    """
    check_writable(out or runs_dir, "choose another --runs-dir or --out")
    check_resources(planned.evaluators, planned.info.spec)
    if remeasure is not None:
        _check_remeasured(remeasure, planned.evaluators, overwrite)
    dataset, public = open_images(planned, data_root, progress)
    progress.note(f"{dataset.info.name} from {dataset.source}")
    spec = spec_of(planned, dataset.content_hash, public)
    planned.ranks.broadcast(spec.id.encode())
    folder = out if out is not None else runs_dir / spec.folder
    if remeasure and not (folder / RECORD).is_file():
        raise _nothing_to_measure(folder)
    with in_plain_words(spec.method, folder):
        folder.mkdir(parents=True, exist_ok=True)
        with locked_folder(folder):
            second = overwrite and may_have_released(folder)
            record = open_record(folder, spec, overwrite)
            if second and planned.budget.private and not spec.reproducible:
                progress.note(
                    "this is a second release from the same private images: what the discarded "
                    "run spent stays spent, so the two budgets add up"
                )
            if remeasure and "sample" not in record.done:
                raise _nothing_to_measure(folder)
            record.done = [part for part in record.done if part not in (remeasure or ())]
            if planned.completed(record):
                planned.ranks.broadcast(NOTHING_TO_FIT)
                progress.note(f"this run is complete already: {folder} (--overwrite runs it again)")
                return record, folder
            prepare(planned.device)
            if record.done:
                progress.note(f"resuming: {were_done(record.done)}")
            run = RunSteps(planned, dataset, public, record, folder, progress)
            _carry_out(run, debug, remeasure or ())
    return record, folder


def _carry_out(run: RunSteps, debug: bool, remeasure: tuple[str, ...]) -> None:
    """Do what is left of a run; its record says how it ended."""
    record = run.record
    try:
        with contained(record.spec.method):
            run.fit()
            share_cores(1)  # the other ranks have ended
            run.sample()
            run.evaluate(debug, remeasure)
    except Exception as error:
        if record.status != "complete":  # asked for more, what is there stays whole
            record.status, record.error = "failed", described(error)
            with suppress(OSError):  # why it cannot be written is the error itself
                run.save()
        raise
    record.status, record.error = "complete", None
    run.save()


@contextmanager
def in_plain_words(method: str, folder: Path) -> Iterator[None]:
    """Say of what ends a run in the block what it was, and how to go on.

    Args:
        method: Its method.
        folder: Its folder.

    Raises:
        UserError: As it came.
        RunFailed: As it came, or in place of any other error.
    """
    try:
        yield
    except (UserError, RunFailed):
        raise
    except Exception as error:
        if not folder.is_dir():
            raise RunFailed(
                f"{folder} was removed while the run was at work there: the same command begins "
                "anew, which is a second release if the run is private"
            ) from error
        said = f"{method} failed: {described(error)}"
        if out_of_room(error) or out_of_memory(error):
            raise RunFailed(f"{said}, and give the same command, which continues") from error
        raise RunFailed(f"{said} (--debug shows where; {folder / RECORD})") from error


def _check_remeasured(names: tuple[str, ...], asked: tuple[str, ...], overwrite: bool) -> None:
    """Check the evaluators that are to measure again.

    Raises:
        UserError: There is no such evaluator, it is left out, or the whole run is made anew.
    """
    if not names:
        raise UserError("--remeasure is empty: `dpbench list evaluators`, or leave it out")
    if overwrite:
        raise UserError("--overwrite makes the whole run anew: leave --remeasure out")
    for name in names:
        load_entry("evaluator", name)
        if name not in asked:
            raise UserError(f"--remeasure {name}: --evaluators leaves it out")


def _nothing_to_measure(folder: Path) -> UserError:
    return UserError(
        f"{folder} holds no samples to measure again: give --remeasure with the options of a run "
        "that was made, or leave it out"
    )


def pretrain(planned: PlannedRun, progress: Progress, data_root: Path | None = None) -> None:
    """Do the public training of a planned run, and keep its result for runs like it.

    Args:
        planned: From ``plan``.
        progress: Receives progress updates.
        data_root: Where to look for data first.

    Raises:
        UserError: The method has no public training, its images cannot be had, or the cache, which
            is to keep the weights, cannot be written.
    """
    method = planned.resolved.method
    if planned.plan.public == NO_PUBLIC or not hasattr(method, "pretrain"):
        raise UserError(
            f"{planned.request.method} as planned has no public training to do beforehand: name "
            "public images with --public, or take another --method"
        )
    check_writable(cache_path(), "name another place with XDG_CACHE_HOME")
    _, public = open_images(planned, data_root, progress)
    prepare(planned.device)
    with tempfile.TemporaryDirectory() as folder:
        context = run_context(planned, public, progress, Path(folder))
        with contained(planned.request.method):
            method.pretrain(planned.info, context)


def assist(planned: PlannedRun, data_root: Path | None = None) -> None:
    """Do the part of a rank that is not the first: its share of training.

    Args:
        planned: From ``plan``.
        data_root: Where to look for data first.

    Raises:
        UserError: Not the run that the first rank executes.
    """
    first_id = planned.ranks.broadcast().decode()  # comes when the first rank has fetched the data
    dataset, public = open_images(planned, data_root, Silent())
    if spec_of(planned, dataset.content_hash, public).id != first_id:
        raise UserError(
            f"rank {planned.ranks.rank} has other data or another version of "
            f"{planned.request.method} than the first rank: give all the same"
        )
    key = planned.ranks.broadcast()
    if key != NOTHING_TO_FIT:
        prepare(planned.device)
        # only the first rank keeps a journal: nothing is released without its part of a sum
        ledger = PrivacyLedger(planned.budget, planned=planned.plan.events)
        with tempfile.TemporaryDirectory() as folder:
            executions = Executions(ranks=planned.ranks)
            context = run_context(planned, public, Silent(), Path(folder))
            with contained(planned.request.method):
                fit_method(planned, dataset, key, ledger, executions, context)


def open_images(
    planned: PlannedRun, data_root: Path | None, progress: Progress
) -> tuple[Dataset, PublicSource | None]:
    """Load the private images of a planned run, and open its public ones."""
    dataset = load(planned.request.dataset, data_root, progress)
    public = open_public(
        planned.plan.public,
        planned.info,
        dataset.splits.train,
        planned.request.seed,
        data_root,
        progress,
    )
    return dataset, public
