"""What may be given away of a run: its images, the certificate and a datasheet; nothing else."""

from __future__ import annotations

import csv
import io
import shutil
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dpbench.core.errors import RunFailed, UserError
from dpbench.core.files import safe_name
from dpbench.core.metrics import Measurement
from dpbench.core.npz import read_all
from dpbench.core.progress import Progress
from dpbench.data.catalog import CATALOG
from dpbench.records.accounts import Accounts
from dpbench.records.run_record import RECORD, RELEASES, RunRecord
from dpbench.records.verify import Verdict, verify
from dpbench.report.pages import render_text

SAMPLES, DATASHEET, LABELS, IMAGES = "samples.npz", "DATASHEET.md", "labels.csv", "images"


def release(
    record_file: Path, out: Path, as_npz: bool, with_scores: bool, progress: Progress
) -> RunRecord:
    """Write the release of a run to a new folder, all or nothing.

    It holds the samples, as PNG files by class with ``labels.csv`` or as ``samples.npz``; the
    record, without what was measured on private images and without what describes the machine, with
    the counters of its releases; and ``DATASHEET.md``.

    Args:
        record_file: The run's record, beside its samples.
        out: The folder, which must not be there or be empty.
        as_npz: Write one file of arrays in place of PNG files.
        with_scores: Keep what was measured on private images, marked as such.
        progress: Receives progress updates.

    Returns:
        The record as it was released.

    Raises:
        UserError: The run may not be released, its samples are not there, or the folder is in use.
        RunFailed: What would be released does not verify as the run does.
    """
    _check_empty(out)
    accounts = Accounts()  # what is released has the same events: they are accounted for once
    record = _releasable(verify(record_file, accounts))
    samples = record_file.parent / SAMPLES
    if SAMPLES not in record.artifacts or not samples.is_file():
        raise UserError(f"{samples} is not there: a run that draws no images has none to release")
    public = _without_what_is_private(record, as_npz, with_scores)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as place:
        folder = Path(place) / out.name
        folder.mkdir()
        if as_npz:
            shutil.copyfile(samples, folder / SAMPLES)
        else:
            _write_images(samples, _classes(record), folder, progress)
        with suppress(FileNotFoundError):  # its hash says that it was there
            shutil.copyfile(record_file.parent / RELEASES, folder / RELEASES)
        (folder / RECORD).write_text(public.dumps())
        (folder / DATASHEET).write_text(_datasheet(public, record, as_npz))
        if wrong := verify(folder / RECORD, accounts).wrong:
            raise RunFailed(f"what would be released does not verify: {wrong[0]}")
        if out.is_dir():
            out.rmdir()
        folder.rename(out)
    return public


def _check_empty(out: Path) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out} is there already: choose another --out, or remove it")


def _releasable(verdict: Verdict) -> RunRecord:
    """The record of a run that may be released.

    Raises:
        UserError: It may not.
    """
    record = verdict.record
    if record.status != "complete":
        raise UserError(f"{verdict.file} is of a run that is not complete: finish it first")
    if verdict.wrong:
        raise UserError(f"{verdict.file} is rejected, nothing is released: {verdict.wrong[0]}")
    if (kind := record.privacy["release"]) != "valid":
        raise UserError(
            f"{verdict.file} is of a run whose samples may not be released ({kind}): run a private "
            "method without --reproducible"
        )
    return record


def _without_what_is_private(record: RunRecord, as_npz: bool, with_scores: bool) -> RunRecord:
    kept = ("fit", "sample")
    public = replace(
        record,
        resolved={name: part for name, part in record.resolved.items() if name != "sittings"},
        environment={},
        artifacts={
            name: record.artifacts[name]
            for name in (RELEASES, *((SAMPLES,) if as_npz else ()))
            if name in record.artifacts
        },
    )
    if with_scores:
        return public
    return replace(
        public,
        done=[part for part in record.done if part in kept],
        evaluators={},
        measurements=[],
        timings={name: time for name, time in record.timings.items() if name in kept},
    )


def _classes(record: RunRecord) -> dict[str, str]:
    """Name of each class by its label."""
    if record.spec.dataset in CATALOG:
        return CATALOG[record.spec.dataset].labels
    classes: dict[str, str] = record.resolved.get("classes", {})
    return classes


def _write_images(samples: Path, classes: dict[str, str], folder: Path, progress: Progress) -> None:
    """Write PNG files, in folders named by label and class, and the table of their labels."""
    arrays = read_all(samples)
    images, labels = arrays["images"], arrays["labels"]
    rows = []
    with progress.task("writing images", len(images), "images") as task:
        for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            name = classes.get(str(label), "")
            place = Path(IMAGES, safe_name(f"{label}-{name}" if name else str(label)))
            (folder / place).mkdir(parents=True, exist_ok=True)
            file = place / f"{number:06}.png"
            pixels = np.moveaxis(image, 0, -1)
            Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(folder / file)
            rows.append((file.as_posix(), label, name))
            task.advance(1)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("file", "label", "class"))
    writer.writerows(rows)
    (folder / LABELS).write_text(table.getvalue())


def _datasheet(public: RunRecord, record: RunRecord, as_npz: bool) -> str:
    scores: list[Measurement] = [
        each for each in public.measurements if each.value is not None and each.kind == "score"
    ]
    values: dict[str, Any] = {
        "spec": record.spec,
        "privacy": record.privacy,
        "resolved": record.resolved,
        "classes": _classes(record),
        "as_npz": as_npz,
        "scores": scores,
    }
    return render_text("datasheet.md.j2", **values)
