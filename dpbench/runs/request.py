"""Requests for runs, checked and costed before any data is read."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch

from dpbench.api.method import Method, Plan
from dpbench.api.profiles import PROFILES, Profile
from dpbench.core.errors import UserError, contained, described, unknown
from dpbench.core.images import ImageSpec
from dpbench.core.registry import entries, version_of
from dpbench.core.registry import load as load_entry
from dpbench.data.catalog import CATALOG, DatasetInfo
from dpbench.data.load import find_info
from dpbench.parallel.device import prepare, resolve_device
from dpbench.parallel.ranks import ALONE, Ranks
from dpbench.privacy.budget import Adjacency, PrivacyBudget
from dpbench.privacy.clipping.selection import AUTO, check_name
from dpbench.privacy.mechanisms import PrivateSetInfo
from dpbench.records.run_record import RunRecord
from dpbench.runs.evaluation import left, named
from dpbench.runs.hyperparameters import Resolved, hyperparameters, resolve
from dpbench.runs.public_images import check_public

MOST_PARAMETERS = 500_000_000  # six times the largest network of the papers
PUBLIC_FIELD = "public"  # the hyper-parameter that --public sets


@dataclass(frozen=True)
class RunRequest:
    """Unvalidated options of a command, as given by the user.

    Attributes:
        method: CLI name.
        dataset: CLI name, or ``imagefolder:PATH``.
        epsilon: The privacy budget's epsilon; None means 1 for private methods and inf for others.
        delta: The privacy budget's delta.
        adjacency: The privacy budget's adjacency.
        seed: Public seed.
        profile: CLI name.
        settings: Hyper-parameters as ``name=value``.
        reproducible: Whether the noise derives from the seed too, which voids release; the engine
            is then fixed.
        device: A torch device, or ``auto``.
        engine: How private gradients are computed, or ``auto`` for the fastest way.
        published: Leave out the ingredients of ours that presets bring into published methods.
        public: Public images to pre-train on; None for what the method's preset says.
        evaluators: CLI names of those to measure with; None means all.
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
    published: bool = False
    public: str | None = None
    evaluators: tuple[str, ...] | None = None


@dataclass(frozen=True)
class PlannedRun:
    """A run that was checked and costed; nothing has been read or written yet.

    Attributes:
        request: The request.
        resolved: The method with its hyper-parameters.
        method_version: Version of the method's code.
        budget: The privacy budget.
        profile: The profile.
        dataset: Facts about the data set that need no loading.
        device: Device to compute on.
        plan: What training will do and spend.
        evaluators: CLI names of the evaluators.
        ranks: The processes that will train.
    """

    request: RunRequest
    resolved: Resolved
    method_version: str
    budget: PrivacyBudget
    profile: Profile
    dataset: DatasetInfo
    device: torch.device
    plan: Plan
    evaluators: tuple[str, ...]
    ranks: Ranks = ALONE

    @property
    def info(self) -> PrivateSetInfo:
        """Facts about the private images that count as public."""
        return private_set_info(self.dataset)

    @property
    def classes_of_folder(self) -> dict[str, dict[str, str]]:
        """Which label is which class, for the record of a folder; the catalog says it of others."""
        if self.dataset.name in CATALOG:
            return {}
        return {"classes": self.dataset.labels}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is allowed, but weakens the claim; a sentence each."""
        size, delta = self.dataset.train, self.budget.delta
        if not self.budget.private or delta * size < 1:
            return ()
        return (
            f"delta {delta:g} is not below 1 / {size:,}, the number of images: even publishing a "
            "few images outright would meet such a guarantee",
        )

    def evaluators_left(self, record: RunRecord) -> list[str]:
        """Names of the evaluators that have not measured yet, or are to be tried again."""
        return left(self.evaluators, record, self.info.spec)

    def completed(self, record: RunRecord) -> bool:
        """Whether everything that was requested is done."""
        return record.status == "complete" and not self.evaluators_left(record)

    @functools.cached_property
    def sampling_seconds(self) -> float:
        """Time to draw the samples in seconds, from drawing a few with random weights here."""
        if self.plan.sampling is None:
            return 0.0
        prepare(self.device)
        return self.profile.samples / self.plan.sampling(self.device)

    @functools.cached_property
    def training_seconds(self) -> float:
        """Training time in seconds, from timing one step of each stage on black images here."""
        prepare(self.device)
        return sum(
            # ranks divide private work, and each does all public work
            stage.evaluations / stage.probe(self.device) / (self.ranks.size if stage.private else 1)
            for stage in self.plan.stages
            if stage.probe is not None
        )


def plan(request: RunRequest, ranks: Ranks = ALONE) -> PlannedRun:
    """Check a request and cost it.

    Args:
        request: The unvalidated request.
        ranks: The processes that are to train.

    Raises:
        UserError: Anything about the request that cannot work.
    """
    if request.profile not in PROFILES:
        raise UserError(unknown("profile", request.profile, PROFILES))
    dataset = find_info(request.dataset)
    check_seed(request.seed)
    check_name(request.engine)
    if request.reproducible and request.engine != AUTO:
        raise UserError(
            "--reproducible fixes the engine, since engines differ in their last bits: leave "
            "--engine out"
        )
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
    with contained(request.method):
        resolved = resolve(
            kind,
            request.method,
            profile.name,
            dataset.name,
            epsilon,
            settings,
            published=request.published,
        )
        _check_least_compute(request.method, resolved, profile, dataset.train)
        try:
            training = resolved.method.plan(private_set_info(dataset), budget)
        except ValueError as error:  # a library that a hyper-parameter does not suit
            raise UserError(
                f"{request.method} cannot be planned as asked ({described(error)}): change --set"
            ) from error
    if training.parameters > MOST_PARAMETERS:
        raise UserError(
            f"{request.method} plans a network of {training.parameters:,} parameters; expected at "
            f"most {MOST_PARAMETERS:,}: make it smaller with --set"
        )
    check_public(training.public, request.dataset)
    _check_compute(request.method, training, profile)
    entry = entries("method")[request.method]
    return PlannedRun(
        request=request,
        resolved=resolved,
        method_version=version_of(entry),
        budget=budget,
        profile=profile,
        dataset=dataset,
        device=device,
        plan=training,
        evaluators=evaluators,
        ranks=ranks,
    )


def _settings(kind: type[Method], request: RunRequest) -> tuple[str, ...]:
    """Assignments of a request, including that of ``--public``."""
    if request.public is None:
        return request.settings
    if PUBLIC_FIELD not in hyperparameters(kind):
        raise UserError(
            f"{request.method} does not pre-train on public images of your choice: leave --public "
            "out, or take another --method"
        )
    return (*request.settings, f"{PUBLIC_FIELD}={request.public}")


def private_set_info(dataset: DatasetInfo) -> PrivateSetInfo:
    """Facts about a data set's train split that count as public."""
    spec = ImageSpec(*dataset.shape)
    return PrivateSetInfo(dataset.name, spec, dataset.classes, dataset.train)


def check_seed(seed: int) -> None:
    """Check that a public seed is in range.

    Raises:
        UserError: The seed is not in [0, 2^63).
    """
    if not 0 <= seed < 2**63:
        raise UserError(f"--seed must lie in [0, 2^63), got {seed}")


def _check_least_compute(method: str, resolved: Resolved, profile: Profile, images: int) -> None:
    """As ``_check_compute``, before noise is calibrated to steps that cannot be afforded."""
    steps, batch = (resolved.arguments.get(name, 1) for name in ("steps", "batch_size"))
    limit = profile.compute.private_evaluations
    if not isinstance(steps, int) or not isinstance(batch, int):
        return
    if batch <= images and steps * batch > limit:  # a larger batch has a message of its own
        raise UserError(
            f"{method} plans at least {steps * batch:,} private gradient evaluations; profile "
            f"{profile.name} allows {limit:,} to every method: lower steps or batch size with "
            "--set, or choose a larger --profile"
        )


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
