"""Methods fitted to the digits at the smallest size, and what they then draw or predict."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from dpbench.api.method import Method, Predictor, RunContext, Sampler
from dpbench.api.profiles import SMOKE
from dpbench.core.images import Images
from dpbench.core.progress import Silent
from dpbench.core.registry import load
from dpbench.core.streams import Streams, reproducible_key
from dpbench.data.catalog import CATALOG
from dpbench.data.load import load as load_dataset
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.ledger import PrivacyLedger
from dpbench.privacy.mechanisms import PrivateImages
from dpbench.runs.fitted import rebuilt, stored
from dpbench.runs.hyperparameters import resolve
from dpbench.runs.public_images import open_public
from dpbench.runs.request import private_set_info

INFO = private_set_info(CATALOG["digits"])


def budget_of(kind: type) -> PrivacyBudget:
    return PrivacyBudget(2.0 if kind.private else math.inf)


def fitted(
    name: str, folder: Path, seed: int = 0, train: Images | None = None
) -> tuple[Method, Sampler | Predictor, PrivacyLedger]:
    kind = load("method", name)
    budget = budget_of(kind)
    method = resolve(kind, name, "smoke", "digits", budget.epsilon, ()).method
    streams = Streams(seed)
    ledger = PrivacyLedger(budget)
    images = train or load_dataset("digits", None, Silent()).splits.train
    private = PrivateImages(images, INFO, ledger, Streams(seed, reproducible_key(seed)))
    folder.mkdir(exist_ok=True)
    public = open_public(method.plan(INFO, budget).public, INFO, None, seed, None, Silent())
    run = RunContext(
        profile=SMOKE,
        device=torch.device("cpu"),
        streams=streams,
        progress=Silent(),
        folder=folder,
        public=public,
        cache=folder,
    )
    return method, method.fit(private, run), ledger


def survivor(method: Method, fitted: Sampler | Predictor) -> Sampler | Predictor:
    """What a run draws from: rebuilt from what it stores."""
    return rebuilt(method, stored(fitted), INFO, torch.device("cpu"))


def outcome(fitted: Sampler | Predictor) -> torch.Tensor:
    """Samples, or predictions of random images."""
    rng = torch.Generator().manual_seed(3)
    if not isinstance(fitted, Sampler):
        images = torch.randint(256, (20, *INFO.spec.shape), generator=rng, dtype=torch.uint8)
        return fitted.predict(images)
    return fitted.sample(torch.arange(20) % INFO.classes, rng)
