"""Scoring samples without what made them: those of a run again, or samples made elsewhere."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from dpbench.api.evaluator import Need
from dpbench.api.profiles import LAPTOP, PROFILES, Profile
from dpbench.core.checks import check_name
from dpbench.core.errors import UserError, unknown
from dpbench.core.files import check_writable, safe_name, sha256, write_text
from dpbench.core.images import Images, ImageSpec, content_hash
from dpbench.core.progress import Progress
from dpbench.core.registry import OURS
from dpbench.core.registry import load as load_entry
from dpbench.core.streams import Streams
from dpbench.data.formats import folders
from dpbench.data.load import Dataset, find_info, load
from dpbench.data.samples import read_samples
from dpbench.parallel.device import prepare, resolve_device
from dpbench.records.run_record import RECORD, RunRecord, read_record
from dpbench.records.sample_scores import UNKNOWN, Scores, ScoresSpec, read_scores
from dpbench.runs.environment import environment
from dpbench.runs.evaluation import Subject, check_resources, evaluate, left, named
from dpbench.runs.folder import SAMPLES
from dpbench.runs.request import check_seed
from dpbench.runs.resuming import read_earlier, timed_part

FOLDER = Path("evaluations")
MOST_SAMPLES = 10  # times what runs of the profile draw
LACKING = {
    Need.MECHANISM: "only samples are evaluated here, not the mechanism that made them",
    Need.PUBLIC: "only samples are evaluated here, without their generator's public images",
}


@dataclass(frozen=True)
class SampleRequest:
    """Unvalidated options of a command, as given by the user.

    Attributes:
        source: A run's folder, an ``.npz`` file, or a folder of images by class.
        dataset: CLI name of the data set that the samples imitate; None for the run's own.
        evaluators: CLI names; None means all.
        profile: CLI name; None for the run's own, or laptop.
        seed: Public seed of the evaluators; None for the run's own, or 0.
        name: What the samples are called; None for what ``source`` is called.
        out: The file of the scores; None for one in ``evaluations/`` with the samples' name.
        device: A torch device, or ``auto``.
    """

    source: Path
    dataset: str | None = None
    evaluators: tuple[str, ...] | None = None
    profile: str | None = None
    seed: int | None = None
    name: str | None = None
    out: Path | None = None
    device: str = "auto"


def score(
    request: SampleRequest, progress: Progress, data_root: Path | None = None, debug: bool = False
) -> tuple[Scores, Path]:
    """Measure samples with every evaluator that has not measured them yet, or failed to.

    The scores are written after each evaluator, so that an interruption loses one at most.

    Args:
        request: The unvalidated request.
        progress: Receives progress updates.
        data_root: Where to look for data first.
        debug: Let an evaluator's error end it instead of becoming a row with a reason.

    Returns:
        The scores and the file they are in.

    Raises:
        UserError: Anything about the request or the samples that cannot work.
    """
    place = request.out.parent if request.out is not None else FOLDER
    check_writable(place, "choose another --out")
    check_name(request.name or _called(request.source), "the samples")
    run = _run(request.source)
    name = _dataset_name(request, run)
    info = find_info(name)
    if run is not None and info.name != run.spec.dataset:
        raise UserError(
            f"{request.source} is a run on {run.spec.dataset}: its samples cannot be scored "
            f"against {info.name}"
        )
    profile = _profile(request.profile or (run.spec.profile if run else LAPTOP.name))
    seed = request.seed if request.seed is not None else run.spec.seed if run else 0
    check_seed(seed)
    names = _of_samples(request.evaluators)
    check_resources(names, ImageSpec(*info.shape))
    device = resolve_device(request.device)
    most = MOST_SAMPLES * profile.samples
    samples = read_samples(_samples(request.source, run), info, most, progress)
    dataset = load(name, data_root, progress)
    progress.note(f"{dataset.info.name} from {dataset.source}")
    spec = _spec(request, run, samples, dataset, profile, seed)
    file = request.out or FOLDER / f"{safe_name(spec.name)}.json"
    classes = info.labels if name.startswith(folders.PREFIX) else {}
    progress.note(f"labels: {info.labels_in_words}")
    scores = _open_scores(file, spec, classes)
    if not left(names, scores, samples.spec):
        progress.note(f"these are measured already: {file} (remove it to measure again)")
    if len(samples) != profile.samples:
        progress.note(
            f"{len(samples):,} samples, where runs of profile {profile.name} have "
            f"{profile.samples:,}: compare scores of equal n only"
        )

    def part(evaluator: str) -> AbstractContextManager[None]:
        return timed_part(scores, evaluator, lambda: write_text(file, scores.dumps()))

    prepare(device)
    subject = Subject(
        dataset=dataset,
        synthetic=samples,
        profile=profile,
        device=device,
        streams=Streams(seed),
        progress=progress,
        run_id=spec.id,
        lacking=LACKING,
    )
    evaluate(subject, names, scores, part, debug)
    return scores, file


def _called(source: Path) -> str:
    try:
        return source.resolve().name
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"there is no {source} ({error})") from None


def _run(source: Path) -> RunRecord | None:
    """The record of the run in a folder, if that is what the folder is."""
    return read_record(source / RECORD) if (source / RECORD).is_file() else None


def _dataset_name(request: SampleRequest, run: RunRecord | None) -> str:
    name = request.dataset or (run.spec.dataset if run else None)
    if name is None:
        raise UserError(
            f"say with --dataset what the samples in {request.source} imitate: "
            "`dpbench list datasets`, or imagefolder:PATH"
        )
    if name.startswith(folders.PREFIX) and not request.dataset:  # records know its last part only
        raise UserError(f"{request.source} is a run on {name}: give --dataset imagefolder:PATH")
    return name


def _profile(name: str) -> Profile:
    if name not in PROFILES:
        raise UserError(unknown("profile", name, PROFILES))
    return PROFILES[name]


def _of_samples(asked: tuple[str, ...] | None) -> list[str]:
    """The evaluators to measure with, none of which was asked for in vain."""
    names = named(asked)
    for name in asked or ():
        if Need.PREDICTOR in load_entry("evaluator", name).needs:
            raise UserError(f"{name} looks at classifiers; leave it out for samples")
    return names


def _samples(source: Path, run: RunRecord | None) -> Path:
    """Where the samples are; those of a run are the ones it drew."""
    if run is None:
        return source
    file = source / SAMPLES
    if SAMPLES not in run.artifacts:
        raise UserError(f"{source} is a run of {run.spec.method} that has drawn no samples")
    if not file.is_file() or sha256(file) != run.artifacts[SAMPLES]:
        raise UserError(
            f"{file} is not what the run drew; restore it, or copy it elsewhere and evaluate the "
            "copy as samples of unknown origin"
        )
    return file


def _spec(
    request: SampleRequest,
    run: RunRecord | None,
    samples: Images,
    dataset: Dataset,
    profile: Profile,
    seed: int,
) -> ScoresSpec:
    if run is not None and run.spec.dataset_hash != dataset.content_hash:
        raise UserError(
            f"{dataset.info.name} from {dataset.source} has other images than the run in "
            f"{request.source} saw"
        )
    source = request.source.resolve()
    named = f"{run.spec.method}-{run.spec.folder.name}" if run else source.name
    return ScoresSpec(
        name=request.name or named.removesuffix(".npz"),
        origin=run.spec.id if run else UNKNOWN,
        samples_hash=content_hash(samples),
        samples=len(samples),
        dataset=dataset.info.name,
        dataset_hash=dataset.content_hash,
        profile=profile.name,
        seed=seed,
        package=f"{OURS} {version(OURS)}",
    )


def _open_scores(file: Path, spec: ScoresSpec, classes: dict[str, str]) -> Scores:
    """The scores in a file, or new ones, written to see that they can be."""
    if file.is_file():
        advice = "choose another --name or --out, or remove it"
        return read_earlier(file, read_scores, spec, f"{file} holds another evaluation", advice)
    scores = Scores(spec, environment=environment(), classes=classes)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, scores.dumps())
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}; choose another --out") from error
    return scores
