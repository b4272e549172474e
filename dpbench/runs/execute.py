"""One run: plan, fit, sample, evaluate, resumable at every boundary."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dpbench.api.evaluator import Need
from dpbench.api.method import Method, Plan, Predictor, RunContext, Sampler
from dpbench.api.profiles import PROFILES, Profile
from dpbench.api.sources import NO_PUBLIC, PublicSource
from dpbench.core.errors import RunFailed, UserError, described, unknown
from dpbench.core.files import (
    lock,
    safe_name,
    sha256,
    write_arrays,
    write_bytes,
    write_text,
    write_torch,
)
from dpbench.core.images import Images, ImageSpec
from dpbench.core.pixels import save_grid
from dpbench.core.progress import Progress, Silent
from dpbench.core.registry import OURS, entries, version_of
from dpbench.core.registry import load as load_entry
from dpbench.core.streams import Streams, new_key, reproducible_key
from dpbench.data.catalog import DatasetInfo
from dpbench.data.load import Dataset, find_info, load
from dpbench.parallel.cores import core_count, share_cores
from dpbench.parallel.device import peak_memory_mb, prepare, resolve_device
from dpbench.parallel.ranks import ALONE, Ranks
from dpbench.privacy.audit.audit import Mechanism
from dpbench.privacy.budget import Adjacency, PrivacyBudget
from dpbench.privacy.certificate import certify, events_of
from dpbench.privacy.clipping.selection import AUTO, Executions, check_name, engine_cache
from dpbench.privacy.events import Event
from dpbench.privacy.ledger import PrivacyLedger
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo
from dpbench.records.run_record import KEPT, RECORD, RELEASES, RunRecord, RunSpec, read, to_json
from dpbench.runs.evaluation import Subject, evaluate, named
from dpbench.runs.hyperparameters import Resolved, hyperparameters, resolve
from dpbench.runs.public_images import check_public, open_public, unread
from dpbench.training.loop import SECRET_MODE, Stage
from dpbench.training.pretraining import Pretraining

CHECKPOINT, SAMPLES, GRID, TRAINING = "checkpoint.pt", "samples.npz", "grid.png", "training"
SAMPLING_CHUNK = 1000
PUBLIC_FIELD = "public"  # the hyper-parameter that --public sets
NOTHING_TO_FIT = b""  # what the first rank tells the others in place of the key
_PACKAGES = (OURS, "torch", "torchvision", "numpy", "scipy", "dp-accounting", "opacus")


@dataclass(frozen=True)
class Request:
    """What a user asks for; names and numbers as given, unchecked.

    Attributes:
        method: CLI name.
        dataset: CLI name, or ``imagefolder:PATH``.
        epsilon: Of the budget; None is 1 for private methods and inf for the others.
        delta: Of the budget.
        adjacency: Of the budget.
        seed: Public seed.
        profile: CLI name.
        settings: ``name=value`` for hyper-parameters.
        reproducible: Derive the noise from the seed too: void for release.
        device: A torch device, or ``auto``.
        engine: Of private gradients, or ``auto`` for the fastest.
        public: Public images to pre-train on; None for what the method's preset says.
        evaluators: CLI names of those to measure with; None for all.
    """

    method: str
    dataset: str
    epsilon: float | None = None
    delta: float = 1e-5
    adjacency: Adjacency = "add_remove"
    seed: int = 0
    profile: str = "laptop"
    settings: tuple[str, ...] = ()
    reproducible: bool = False
    device: str = "auto"
    engine: str = AUTO
    public: str | None = None
    evaluators: tuple[str, ...] | None = None


@dataclass(frozen=True)
class PlannedRun:
    """A run that was checked and costed; nothing was read or written yet.

    Attributes:
        request: What was asked for.
        resolved: The method with its hyper-parameters.
        method_version: What identifies its code.
        budget: The privacy budget.
        profile: The profile.
        dataset: What is known of the data set without loading it.
        device: Where it will run.
        plan: What training will do and spend.
        evaluators: What will be measured with; CLI names.
        ranks: The processes that will train.
    """

    request: Request
    resolved: Resolved
    method_version: str
    budget: PrivacyBudget
    profile: Profile
    dataset: DatasetInfo
    device: torch.device
    plan: Plan
    evaluators: tuple[str, ...]
    ranks: Ranks = ALONE

    def evaluators_left(self, record: RunRecord) -> list[str]:
        """Those that have not measured yet."""
        return [name for name in self.evaluators if name not in record.done]

    def completed(self, record: RunRecord) -> bool:
        """Whether nothing is left to do of what was asked for."""
        return record.status == "complete" and not self.evaluators_left(record)

    @functools.cached_property
    def estimated_seconds(self) -> float:
        """Training time, from one step of each stage on black images on this machine."""
        prepare(self.device)
        return sum(
            # ranks share private work out, and do public work each
            stage.evaluations / stage.probe(self.device) / (self.ranks.size if stage.private else 1)
            for stage in self.plan.stages
            if stage.probe is not None
        )


def plan(request: Request, ranks: Ranks = ALONE) -> PlannedRun:
    """Check a request and cost it.

    Args:
        request: What is asked for.
        ranks: The processes that are to train.

    Raises:
        UserError: Anything about the request that cannot work.
    """
    if request.profile not in PROFILES:
        raise UserError(unknown("profile", request.profile, PROFILES))
    dataset = find_info(request.dataset)
    check_seed(request.seed)
    check_name(request.engine)
    evaluators = tuple(named(request.evaluators))
    kind = load_entry("method", request.method)
    epsilon = request.epsilon
    if epsilon is None:
        epsilon = 1.0 if kind.private else math.inf
    budget = PrivacyBudget(epsilon, request.delta, request.adjacency)
    if budget.private and not kind.private:
        raise UserError(
            f"{request.method} is not private: it has no finite epsilon, run it with --eps inf"
        )
    profile = PROFILES[request.profile]
    device = resolve_device(request.device, ranks)
    settings = _settings(kind, request)
    resolved = resolve(kind, request.method, profile.name, dataset.name, epsilon, settings)
    training = resolved.method.plan(private_set_info(dataset), budget)
    check_public(training.public, request.dataset)
    _check_compute(request.method, training, profile)
    entry = entries("method")[request.method]
    return PlannedRun(
        *(request, resolved, version_of(entry), budget, profile, dataset, device, training),
        *(evaluators, ranks),
    )


def public_of(
    planned: PlannedRun, dataset_hash: str, data_root: Path | None, progress: Progress
) -> PublicSource | None:
    """The public images of a planned run: see ``dpbench.runs.public_images.open_public``."""
    info = private_set_info(planned.dataset)
    return open_public(planned.plan.public, info, dataset_hash, data_root, progress)


def spec_of(planned: PlannedRun, dataset_hash: str, public: PublicSource | None) -> RunSpec:
    """What the record of a planned run will say that was asked for; its id names the folder.

    Args:
        planned: From ``plan``.
        dataset_hash: SHA-256 of the data set's arrays, from ``load``.
        public: From ``public_of``.
    """
    arguments = dict(planned.resolved.arguments)
    public_id = None
    if public is not None and PUBLIC_FIELD in arguments:  # others' version says what they train on
        arguments[PUBLIC_FIELD] = public.name
        public_id = f"{public.name}@{public.identity[:12]}"
    return RunSpec(
        method=planned.request.method,
        method_version=planned.method_version,
        method_args=arguments,
        dataset=planned.dataset.name,
        dataset_hash=dataset_hash,
        epsilon=planned.budget.epsilon,
        delta=planned.budget.delta,
        adjacency=planned.budget.adjacency,
        seed=planned.request.seed,
        profile=planned.profile.name,
        compute=asdict(planned.profile.compute),
        samples=planned.profile.samples,
        public=public_id,
        precision=planned.resolved.arguments.get("precision", "float32"),
        reproducible=planned.request.reproducible,
    )


def _settings(kind: type[Method], request: Request) -> tuple[str, ...]:
    """The assignments of a request, with that of ``--public``."""
    if request.public is None:
        return request.settings
    if PUBLIC_FIELD not in hyperparameters(kind):
        raise UserError(
            f"{request.method} does not pre-train on public images of your choice: leave --public "
            "out, or take another --method"
        )
    return (*request.settings, f"{PUBLIC_FIELD}={request.public}")


def mechanism(planned: PlannedRun, events: tuple[Event, ...], executions: Executions) -> Mechanism:
    """What an audit needs to know of a run: what it claims, and its method to try.

    Args:
        planned: From ``plan``.
        events: What the claim rests on: planned, or certified.
        executions: Choose how gradients are computed, or chose it in the run.
    """

    def fit(private: PrivateImages) -> None:
        streams = Streams(planned.request.seed)
        with tempfile.TemporaryDirectory() as folder:
            context = _PrivatePartsOnly(
                *(planned.profile, planned.device, streams, Silent(), Path(folder)),
                public=unread(planned.plan.public),
            )
            planned.resolved.method.fit(private, context)

    info = private_set_info(planned.dataset)
    return Mechanism(info, planned.budget, events, fit, planned.device, executions)


class _PrivatePartsOnly(RunContext):
    """Leaves out every stage that the method runs itself, as on a resume past it."""

    def stage(self, name: str, label: str) -> Stage:
        return _Skipped(label, self.folder / f"{name}.stage", self.progress)

    def pretraining(self, recipe: Mapping[str, object], label: str) -> Pretraining:
        return _SkippedPretraining(recipe, label, self.folder, self.progress)


class _Skipped(Stage):
    def steps(self, *_: object, **__: object) -> Iterator[int]:
        return iter(())


class _SkippedPretraining(Pretraining):
    def load(self, model: nn.Module) -> bool:
        return True


def private_set_info(dataset: DatasetInfo) -> PrivateSetInfo:
    """What is public about a data set's train split."""
    spec = ImageSpec(*dataset.shape)
    return PrivateSetInfo(dataset.name, spec, dataset.classes, dataset.train)


def check_seed(seed: int) -> None:
    """Refuse what is no public seed.

    Raises:
        UserError: It is not in [0, 2^63).
    """
    if not 0 <= seed < 2**63:
        raise UserError(f"--seed must lie in [0, 2^63), got {seed}")


def _check_compute(method: str, training: Plan, profile: Profile) -> None:
    limits = {
        True: ("private", profile.compute.private_evaluations),
        False: ("public", profile.compute.public_evaluations),
    }
    for private, (word, limit) in limits.items():
        wanted = training.evaluations(private)
        if wanted > limit:
            raise UserError(
                f"{method} plans {wanted:,} {word} gradient evaluations; profile {profile.name} "
                f"allows {limit:,} to every method: lower steps, batch size or multiplicity "
                "with --set, or choose a larger --profile"
            )


def execute(
    planned: PlannedRun,
    progress: Progress,
    runs_dir: Path = Path("runs"),
    out: Path | None = None,
    data_root: Path | None = None,
    overwrite: bool = False,
    debug: bool = False,
) -> tuple[RunRecord, Path]:
    """Run what was planned, or what is left of it; the other ranks, if any, ``assist``.

    Args:
        planned: From ``plan``, on the first rank.
        progress: Who is told.
        runs_dir: The run's folder is made below it by data set, method and id.
        out: The run's folder itself, instead.
        data_root: Where to look for data first.
        overwrite: Discard what an earlier run left in the folder.
        debug: Let an evaluator's error end the run instead of becoming a row with a reason.

    Returns:
        The complete record and the folder it is in.

    Raises:
        UserError: Bad data, an unusable folder, or a folder with another run in it.
        RunFailed: The method broke; the record says so.
    """
    dataset = load(planned.request.dataset, data_root, progress)
    progress.note(f"{dataset.info.name} from {dataset.source}")
    public = public_of(planned, dataset.content_hash, data_root, progress)
    _check_writable(out or runs_dir)
    spec = spec_of(planned, dataset.content_hash, public)
    planned.ranks.broadcast(spec.id.encode())
    folder = out if out is not None else runs_dir / spec.folder
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        record = _open(folder, spec, overwrite)
        if planned.completed(record):
            planned.ranks.broadcast(NOTHING_TO_FIT)
            progress.note(f"this run is complete already: {folder} (--overwrite runs it again)")
            return record, folder
        prepare(planned.device)
        run = _Run(planned, dataset, public, record, folder, progress)
        try:
            run.fit()
            share_cores(1)  # the other ranks have ended
            run.sample()
            run.evaluate(debug)
        except Exception as error:
            record.status, record.error = "failed", described(error)
            run.save()
            if isinstance(error, UserError | RunFailed):
                raise
            raise RunFailed(
                f"{spec.method} failed: {record.error} (--debug shows where; {folder / RECORD})"
            ) from error
        record.status, record.error = "complete", None
        run.save()
    return record, folder


def pretrain(planned: PlannedRun, progress: Progress, data_root: Path | None = None) -> None:
    """Do the public training of a planned run, and keep its result for runs like it.

    Args:
        planned: From ``plan``.
        progress: Who is told.
        data_root: Where to look for data first.

    Raises:
        UserError: The method has no public training, or its images cannot be had.
    """
    method = planned.resolved.method
    if planned.plan.public == NO_PUBLIC or not hasattr(method, "pretrain"):
        raise UserError(
            f"{planned.request.method} as planned has no public training to do beforehand: name "
            "public images with --public, or take another --method"
        )
    dataset = load(planned.request.dataset, data_root, progress)
    public = public_of(planned, dataset.content_hash, data_root, progress)
    prepare(planned.device)
    with tempfile.TemporaryDirectory() as folder:
        context = _context(planned, public, progress, Path(folder))
        method.pretrain(private_set_info(planned.dataset), context)


def assist(planned: PlannedRun, data_root: Path | None = None) -> None:
    """Do the part of a rank that is not the first: its share of training.

    Args:
        planned: From ``plan``.
        data_root: Where to look for data first.

    Raises:
        UserError: Not the run that the first rank executes.
    """
    first_id = planned.ranks.broadcast().decode()  # comes when the first rank has fetched the data
    dataset = load(planned.request.dataset, data_root, Silent())
    public = public_of(planned, dataset.content_hash, data_root, Silent())
    if spec_of(planned, dataset.content_hash, public).id != first_id:
        raise UserError(
            f"rank {planned.ranks.rank} has other data or another version of "
            f"{planned.request.method} than the first rank: give all the same"
        )
    key = planned.ranks.broadcast()
    if key != NOTHING_TO_FIT:
        prepare(planned.device)
        # only the first rank keeps a journal: nothing is released without its part of a sum
        ledger = PrivacyLedger(planned.budget)
        with tempfile.TemporaryDirectory() as folder:
            executions = Executions(ranks=planned.ranks)
            context = _context(planned, public, Silent(), Path(folder))
            _fit(planned, dataset, key, ledger, executions, context)


def _fit(
    planned: PlannedRun,
    dataset: Dataset,
    key: bytes,
    ledger: PrivacyLedger,
    executions: Executions,
    context: RunContext,
) -> Sampler | Predictor:
    streams = Streams(planned.request.seed, key)
    info = private_set_info(planned.dataset)
    private = PrivateImages(dataset.splits.train, info, ledger, streams, executions)
    return planned.resolved.method.fit(private, context)


def _context(
    planned: PlannedRun,
    public: PublicSource | None,
    progress: Progress,
    folder: Path,
    pretrained: Callable[[dict[str, Any]], None] = lambda what: None,
) -> RunContext:
    streams = Streams(planned.request.seed)  # what a method draws by itself needs no secret
    return RunContext(
        *(planned.profile, planned.device, streams, progress, folder, planned.ranks),
        public=public,
        pretrained=pretrained,
    )


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}.probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"cannot write to {folder}: {error.strerror}; choose another --runs-dir or --out"
        ) from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder; the lock dies with its process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        if not lock(handle, wait=False):
            raise UserError(f"another process is at work in {folder}: wait for it")
        yield
    finally:
        os.close(handle)


def _open(folder: Path, spec: RunSpec, overwrite: bool) -> RunRecord:
    """The record in a folder, or a new one."""
    for partial in folder.glob(".*.partial"):  # what a killed process was writing
        partial.unlink()
    file = folder / RECORD
    if not file.exists():
        if any(folder.iterdir()):
            raise UserError(f"{folder} is not empty and holds no run: choose another --out")
        return RunRecord(spec)
    if overwrite:
        _discard(folder)
        return RunRecord(spec)
    try:
        record = read(file)
    except UserError as error:
        raise UserError(f"{error}; remove it or run again with --overwrite") from error
    if record.spec.id != spec.id:
        old, new = to_json(asdict(record.spec)), to_json(asdict(spec))
        differing = ", ".join(name for name in new if old[name] != new[name])
        raise UserError(
            f"{folder} holds another run (it differs in {differing}): choose another --out, "
            "or discard it with --overwrite"
        )
    return record


def _discard(folder: Path) -> None:
    """Remove an earlier run, and nothing else that a user may keep beside it."""
    if (folder / TRAINING).exists():
        shutil.rmtree(folder / TRAINING)
    # the record last: it marks the folder
    kept = [file.name for file in folder.glob(f"{KEPT}*.npz")]
    for name in (CHECKPOINT, RELEASES, SAMPLES, GRID, *kept, RECORD):
        (folder / name).unlink(missing_ok=True)


class _Run:
    """The three parts of a run, each skipped if the record says that it is done."""

    def __init__(
        self,
        planned: PlannedRun,
        dataset: Dataset,
        public: PublicSource | None,
        record: RunRecord,
        folder: Path,
        progress: Progress,
    ) -> None:
        self.planned = planned
        self.dataset = dataset
        self.public = public
        self.record = record
        self.folder = folder
        self.progress = progress
        if not record.done:
            record.resolved |= {
                "preset": planned.resolved.source,
                "by_hand": list(planned.resolved.by_hand),
                "device": str(planned.device),
                "cores": core_count(),
                "processes": planned.ranks.size,
            }
            record.environment = environment()
        record.status, record.error = "started", None
        self.save()

    def save(self) -> None:
        """Write the record, all or nothing."""
        write_text(self.folder / RECORD, self.record.dumps())

    @contextlib.contextmanager
    def _part(self, name: str) -> Iterator[None]:
        """Time a part, also when it is interrupted, and mark it done when it ends well."""
        started = time.perf_counter()
        try:
            yield
            self.record.done.append(name)
        finally:
            seconds = time.perf_counter() - started
            self.record.timings[name] = self.record.timings.get(name, 0.0) + seconds
            self.record.cost["peak_memory_mb"] = max(
                self.record.cost.get("peak_memory_mb", 0.0), peak_memory_mb(self.planned.device)
            )
            self.save()

    def fit(self) -> None:
        """Train; leaves what was fitted, the certificate and the costs, and destroys the key."""
        training = self.folder / TRAINING
        if "fit" in self.record.done:
            self.planned.ranks.broadcast(NOTHING_TO_FIT)
        else:
            training.mkdir(mode=0o700, exist_ok=True)
            key = self._key(training)
            self.planned.ranks.broadcast(key)
            ledger = PrivacyLedger(self.planned.budget, training / "ledger.json")
            with self._part("fit"):
                context = _context(
                    *(self.planned, self.public, self.progress, training), self._pretrained
                )
                executions = self._executions()
                fitted = _fit(self.planned, self.dataset, key, ledger, executions, context)
                self.progress.note("certifying: epsilon by three accountants")
                self.record.privacy = certify(ledger, self.record.spec.reproducible, _code())
                self.record.cost.update(
                    private_evaluations=self.planned.plan.evaluations(private=True),
                    public_evaluations=self.planned.plan.evaluations(private=False),
                    stages={stage.name: stage.evaluations for stage in self.planned.plan.stages},
                    parameters=self.planned.plan.parameters,
                )
                write_torch(self.folder / CHECKPOINT, fitted)
                write_text(self.folder / RELEASES, json.dumps(ledger.releases(), indent=2) + "\n")
                self._artifact(CHECKPOINT)
                self._artifact(RELEASES)
        # the noise key has done its work; only now that the record says so
        if training.exists():
            shutil.rmtree(training)

    def _pretrained(self, what: dict[str, Any]) -> None:
        """Note the public weights that training starts from."""
        self.record.resolved["pretrained"] = what
        self.save()

    def _executions(self) -> Executions:
        """What chooses engines: once, since a resumed run must go on as it began."""

        def decided(line: str) -> None:
            self.progress.note(line)
            self.save()

        chosen = self.record.resolved.setdefault("gradients", {})
        engine, ranks = self.planned.request.engine, self.planned.ranks
        return Executions(engine, chosen, engine_cache(), decided, ranks)

    def _key(self, training: Path) -> bytes:
        """The secret key of this run: made at its start, kept until training is over."""
        if self.record.spec.reproducible:
            return reproducible_key(self.record.spec.seed)
        file = training / "noise.key"
        if not file.exists():
            write_bytes(file, new_key(), SECRET_MODE)
        return file.read_bytes()

    def _fitted(self) -> Sampler | Predictor:
        # a pickle that this run wrote itself, to its own folder
        fitted: Sampler | Predictor = torch.load(self.folder / CHECKPOINT, weights_only=False)
        return fitted

    def sample(self) -> None:
        """Draw the synthetic images, with uniform labels, and a picture of some."""
        if "sample" in self.record.done:
            return
        with self._part("sample"):
            sampler = self._fitted()
            if isinstance(sampler, Predictor):
                return  # it draws none
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

    def evaluate(self, debug: bool) -> None:
        """Measure with every evaluator that is not done yet."""
        synthetic, predictor = self._outcome()
        lacking = {}
        if predictor is not None:
            lacking[Need.SAMPLES] = f"{self.record.spec.method} gives a classifier, not images"
        subject = Subject(
            *(self.dataset, synthetic, self.planned.profile, self.planned.device),
            *(Streams(self.record.spec.seed), self.progress, predictor, self.public),
            mechanism=self._mechanism,
            lacking=lacking,
            keep=self._keep,
        )
        waiting = self.planned.evaluators_left(self.record)
        evaluate(subject, waiting, self.record.measurements, self._part, debug)

    def _outcome(self) -> tuple[Images, Predictor | None]:
        """The synthetic images; or none of them, and a classifier."""
        if SAMPLES not in self.record.artifacts:
            predictor = self._fitted()
            assert isinstance(predictor, Predictor)
            return self.dataset.splits.train[:0], predictor
        with np.load(self.folder / SAMPLES) as arrays:
            pixels, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"])
        return Images(pixels, labels), None

    def _mechanism(self) -> Mechanism:
        """The mechanism as certified: every event, all of whose releases were made."""
        return mechanism(self.planned, events_of(self.record.privacy), self._executions())

    def _keep(self, evaluator: str, arrays: Mapping[str, Any]) -> None:
        """Write what an evaluator wants kept."""
        self._arrays(f"{KEPT}{safe_name(evaluator)}.npz", arrays)

    def _arrays(self, name: str, arrays: Mapping[str, Any]) -> None:
        """Write arrays as an artifact."""
        write_arrays(self.folder / name, arrays, compressed=True)
        self._artifact(name)

    def _artifact(self, name: str) -> None:
        self.record.artifacts[name] = sha256(self.folder / name)


def uniform_labels(count: int, classes: int) -> Tensor:
    """What to sample, ``(count,)`` int64: every class alike, since their true sizes are private."""
    return torch.arange(count) % classes


def environment() -> dict[str, str | None]:
    """Versions and machine, for records."""
    packages: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "git_revision": _git_revision(),
        **packages,
    }


def _code() -> dict[str, str | None]:
    """What identifies the code that makes the releases."""
    return {"package": f"{OURS} {version(OURS)}", "git_revision": _git_revision()}


def _git_revision() -> str | None:
    """The revision of dpbench's own source tree, with "+" if it was changed; None if installed."""
    here = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        if not git("ls-files", "__init__.py"):  # installed into somebody else's repository
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None
