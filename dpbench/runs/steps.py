"""The steps of one run: fit, sample, evaluate."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dpbench.api.evaluator import Need
from dpbench.api.method import Predictor, Sampler, uniform_labels
from dpbench.api.sources import PublicSource
from dpbench.core.cache import user_cache
from dpbench.core.errors import RunFailed
from dpbench.core.files import (
    safe_name,
    sha256,
    write_arrays,
    write_bytes,
    write_text,
)
from dpbench.core.images import Images
from dpbench.core.pixels import save_grid
from dpbench.core.progress import Progress
from dpbench.core.streams import Streams, new_key, reproducible_key
from dpbench.data.load import Dataset
from dpbench.parallel.cores import core_count
from dpbench.parallel.device import peak_memory_mb
from dpbench.parallel.ranks import ALONE, Ranks
from dpbench.privacy.audit import Mechanism
from dpbench.privacy.certificate import Tuning, certify, events_of
from dpbench.privacy.clipping.selection import Executions
from dpbench.privacy.ledger import PrivacyLedger
from dpbench.records.run_record import KEPT, RECORD, RELEASES, RunRecord
from dpbench.runs.audited import audited_mechanism
from dpbench.runs.environment import code, environment
from dpbench.runs.evaluation import Subject, evaluate
from dpbench.runs.fitted import rebuilt, stored
from dpbench.runs.fitting import fit_method, run_context
from dpbench.runs.folder import CHECKPOINT, GRID, SAMPLES
from dpbench.runs.request import PlannedRun
from dpbench.runs.resuming import timed_part
from dpbench.runs.training_folder import (
    ANEW,
    BEGUN,
    JOURNAL,
    TRAINING,
    begin,
    check_begun,
    fingerprint,
    kept_key,
    open_training,
    remove,
    spent_in,
)

SAMPLING_CHUNK = 1000
NOTHING_TO_FIT = b""  # the first rank sends this in place of the key


class RunSteps:
    """The three parts of a run; a part that the record lists as done is skipped."""

    def __init__(
        self,
        planned: PlannedRun,
        dataset: Dataset,
        public: PublicSource | None,
        record: RunRecord,
        folder: Path,
        progress: Progress,
    ) -> None:
        """Mark the run as started in its record, or leave it complete, and note the sitting."""
        self.planned = planned
        self.dataset = dataset
        self.public = public
        self.record = record
        self.folder = folder
        self.progress = progress
        versions = environment()
        here = {
            "device": str(planned.device),
            "cores": core_count(),
            "processes": planned.ranks.size,
        }
        if not record.environment:
            record.resolved |= {
                "preset": planned.resolved.source,
                "by_hand": list(planned.resolved.by_hand),
                "departures": list(planned.resolved.departures),
                **planned.classes_of_folder,
                **here,
            }
            record.environment = versions
        # each continuation may be elsewhere, by other code
        sitting = {"after": list(record.done), **here, "environment": versions}
        record.resolved.setdefault("sittings", []).append(sitting)
        if record.status != "complete":  # a complete run that is asked for more stays complete
            record.status, record.error = "started", None
        self.save()

    def save(self) -> None:
        """Write the record, all or nothing."""
        if "fit" in self.record.done:
            self.record.resolved.pop(BEGUN, None)
        write_text(self.folder / RECORD, self.record.dumps())

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        def save() -> None:
            cost, peak = self.record.cost, peak_memory_mb(self.planned.device)
            cost["peak_memory_mb"] = max(cost.get("peak_memory_mb", 0.0), peak)
            self.save()

        with self.progress.part(name), timed_part(self.record, name, save):
            yield

    def fit(self) -> None:
        """Train; write the fitted sampler, the certificate and the cost, then destroy the key."""
        training = self.folder / TRAINING
        if "fit" in self.record.done:
            self.planned.ranks.broadcast(NOTHING_TO_FIT)
        else:
            open_training(training)
            if BEGUN in self.record.resolved and not any(training.glob("*.stage")):
                self.progress.note("resuming: training from its first step")
            key = self.noise_key(training)
            self.planned.ranks.broadcast(key)
            ledger = PrivacyLedger(
                self.planned.budget, training / JOURNAL, self.planned.plan.events
            )
            with self._left_clean(training), self._part("fit"):
                owner = self.record.resolved[BEGUN]
                context = run_context(
                    self.planned, self.public, self.progress, training, owner, self._pretrained
                )
                executions = self._executions(self.planned.ranks)
                fitted = fit_method(self.planned, self.dataset, key, ledger, executions, context)
                self.progress.note("certifying: epsilon by three accountants")
                self.record.privacy = certify(
                    ledger,
                    self.record.spec.reproducible,
                    code(),
                    self.planned.info.nominal_size,
                    self._tuning(),
                )
                planned = {
                    f"{kind}_evaluations": self.planned.plan.evaluations(private=kind == "private")
                    for kind in ("private", "public")
                }
                # public weights that are there already cost what the plan says, and are not counted
                self.record.cost.update(
                    planned | {"private_evaluations": context.evaluations.private},
                    planned=planned,
                    stages={stage.name: stage.evaluations for stage in self.planned.plan.stages},
                    parameters=self.planned.plan.parameters,
                )
                write_bytes(self.folder / CHECKPOINT, stored(fitted))
                write_text(self.folder / RELEASES, json.dumps(ledger.releases(), indent=2) + "\n")
                self._artifact(CHECKPOINT)
                self._artifact(RELEASES)
        # destroy the noise key only after the record lists training as done
        remove(training)

    @contextmanager
    def _left_clean(self, training: Path) -> Iterator[None]:
        """Leave no key behind a failure before any release, and say so of one that is left."""
        try:
            yield
        except (Exception, SystemExit):
            if spent_in(training):
                self.progress.note(
                    f"{training} keeps the key of the noise and what was trained, for the same "
                    "command to continue: remove it before you publish this folder"
                )
            else:
                with suppress(OSError):  # why it failed is what is said
                    self.record.resolved.pop(BEGUN, None)
                    self.save()  # before: a record that knows of a key asks for it
                    remove(training)
            raise

    def _tuning(self) -> Tuning:
        """Where the hyper-parameters come from."""
        resolved = self.planned.resolved
        return Tuning(
            preset=resolved.source,
            from_preset=list(resolved.from_preset),
            by_hand=list(resolved.by_hand),
            accounted=False,
        )

    def _pretrained(self, what: dict[str, Any]) -> None:
        """Record the public weights that training starts from."""
        self.record.resolved["pretrained"] = what
        self.save()

    def _executions(self, ranks: Ranks) -> Executions:
        """Return the choice of engines, made once: a resumed run keeps its engines."""

        def decided(line: str) -> None:
            self.progress.note(line)
            self.save()

        chosen = self.record.resolved.setdefault("gradients", {})
        engine = self.planned.request.engine
        return Executions(
            engine,
            chosen,
            user_cache(self.progress.note),
            decided,
            ranks,
            self.record.spec.reproducible,
        )

    def noise_key(self, training: Path) -> bytes:
        """Return the run's secret key, made when the run starts and kept until training ends.

        Raises:
            RunFailed: It or the journal is not what training began with.
        """
        spec = self.record.spec
        known = self.record.resolved.get(BEGUN)
        if known is not None:
            key = reproducible_key(spec.seed) if spec.reproducible else kept_key(training)
            check_begun(training, key, known)
            return key
        key = reproducible_key(spec.seed) if spec.reproducible else new_key()
        begin(training, None if spec.reproducible else key)
        self.record.resolved[BEGUN] = fingerprint(key)
        self.save()  # before anything is released
        return key

    def _fitted(self) -> Sampler | Predictor:
        planned = self.planned
        content = self._unchanged(CHECKPOINT)
        try:
            return rebuilt(planned.resolved.method, content, planned.info, planned.device)
        except ValueError as error:
            raise RunFailed(
                f"{self.folder / CHECKPOINT} was made by an older version of dpbench, or by "
                f"something else, and is not read: {ANEW}"
            ) from error

    def _unchanged(self, name: str) -> bytes:
        """Return the content of an artifact.

        Raises:
            RunFailed: The file is not there, or not the one that the run wrote.
        """
        file = self.folder / name
        content = file.read_bytes() if file.is_file() else b""
        if hashlib.sha256(content).hexdigest() != self.record.artifacts.get(name):
            raise RunFailed(f"{file} is not what the run wrote: restore it, or {ANEW}")
        return content

    def sample(self) -> None:
        """Draw synthetic images with uniform labels, and a picture of some of them."""
        if "sample" in self.record.done:
            return
        with self._part("sample"):
            sampler = self._fitted()
            if not isinstance(sampler, Sampler):
                return  # predictors draw no samples
            classes, count = self.planned.dataset.classes, self.planned.profile.samples
            labels = uniform_labels(count, classes)
            streams = Streams(self.record.spec.seed)
            chunks = []
            with self.progress.task("sampling", count, "images") as task:
                for start in range(0, count, SAMPLING_CHUNK):
                    part = labels[start : start + SAMPLING_CHUNK]
                    rng = streams.public("sampling", start, device=self.planned.device)
                    chunks.append(sampler.sample(part, rng))
                    task.advance(len(part))
            synthetic = Images(torch.cat(chunks), labels)
            if synthetic.spec.shape != self.planned.dataset.shape:
                raise RunFailed(
                    f"the sampler gave images of shape {synthetic.spec.shape}, "
                    f"not {self.planned.dataset.shape}"
                )
            self._arrays(SAMPLES, {"images": synthetic.pixels.numpy(), "labels": labels.numpy()})
            save_grid(synthetic.pixels[: 10 * classes], classes, self.folder / GRID)
            self._artifact(GRID)

    def evaluate(self, debug: bool, anew: Collection[str] = ()) -> None:
        """Measure with every evaluator that has not measured yet, or is to be tried again.

        Args:
            debug: Let an evaluator's error end the run.
            anew: Names of those whose earlier values are replaced.
        """
        synthetic, predictor = self._outcome()
        lacking = {}
        if predictor is not None:
            lacking[Need.SAMPLES] = f"{self.record.spec.method} gives a classifier, not images"
        subject = Subject(
            dataset=self.dataset,
            synthetic=synthetic,
            profile=self.planned.profile,
            device=self.planned.device,
            streams=Streams(self.record.spec.seed),
            progress=self.progress,
            predictor=predictor,
            public=self.public,
            mechanism=self._mechanism,
            run_id=self.record.spec.id,
            lacking=lacking,
            keep=self._keep,
        )
        evaluate(subject, self.planned.evaluators, self.record, self._part, debug, anew)

    def _outcome(self) -> tuple[Images, Predictor | None]:
        """Return the synthetic images, or no images and the classifier."""
        if SAMPLES not in self.record.artifacts:
            predictor = self._fitted()
            assert not isinstance(predictor, Sampler)
            return self.dataset.splits.train[:0], predictor
        with np.load(io.BytesIO(self._unchanged(SAMPLES)), allow_pickle=False) as arrays:
            pixels, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"])
        return Images(pixels, labels), None

    def _mechanism(self) -> Mechanism:
        """The mechanism as certified: every event, all of whose releases were made."""
        # the other processes have ended with training
        executions = self._executions(ALONE)
        return audited_mechanism(self.planned, events_of(self.record.privacy), executions)

    def _keep(self, evaluator: str, arrays: Mapping[str, Any]) -> None:
        """Write the arrays that an evaluator keeps."""
        self._arrays(f"{KEPT}{safe_name(evaluator)}.npz", arrays)

    def _arrays(self, name: str, arrays: Mapping[str, Any]) -> None:
        """Write arrays as an artifact."""
        write_arrays(self.folder / name, arrays, compressed=True)
        self._artifact(name)

    def _artifact(self, name: str) -> None:
        self.record.artifacts[name] = sha256(self.folder / name)
