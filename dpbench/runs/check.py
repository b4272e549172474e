"""Whether a method learns from private images through its mechanisms alone: by neighbour replay."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch

from dpbench.api.method import Method, Predictor, RunContext, Sampler, uniform_labels
from dpbench.api.profiles import SMOKE
from dpbench.api.sources import PublicSource
from dpbench.core import registry
from dpbench.core.errors import RunFailed, UserError, contained
from dpbench.core.progress import Progress, Silent
from dpbench.core.streams import Streams, reproducible_key
from dpbench.data.load import find_info, load
from dpbench.parallel.device import prepare
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.ledger import PrivacyLedger
from dpbench.privacy.mechanisms import PrivateSetInfo
from dpbench.privacy.replay.handle import Comparison, Release, ReplayedImages, same_or_not
from dpbench.privacy.replay.neighbours import Neighbour, neighbours
from dpbench.runs.fitted import rebuilt, stored
from dpbench.runs.hyperparameters import resolve
from dpbench.runs.public_images import open_public
from dpbench.runs.request import private_set_info

BUDGET = PrivacyBudget(1.0)  # the noise is off: it only has to be something that methods can plan
CPU = torch.device("cpu")
SAMPLES_PER_CLASS = 2


def check(
    name: str, dataset: str, data_root: Path | None, progress: Progress
) -> tuple[Comparison, ...]:
    """Replay a registered method, with its smoke preset, on neighbours of a data set.

    Args:
        name: The method's CLI name.
        dataset: The data set's CLI name, or ``imagefolder:PATH``.
        data_root: Where to look for data first.
        progress: Receives progress updates.

    Raises:
        UserError: An unknown name, or a method that is not private.
        RunFailed: The method breaks on D itself.
    """
    kind = registry.load("method", name)
    found = find_info(dataset)
    if not kind.private:
        raise UserError(
            f"{name} is not private: it reads the images themselves, so there is nothing to check"
        )
    method = resolve(kind, name, SMOKE.name, found.name, BUDGET.epsilon, ()).method
    info = private_set_info(found)
    images = load(dataset, data_root, progress).splits.train
    return replay(method, info, neighbours(images), progress)


def replay(
    method: Method, info: PrivateSetInfo, sets: Sequence[Neighbour], progress: Progress
) -> tuple[Comparison, ...]:
    """Fit a method on D and again on each neighbour, with D's releases held fixed.

    Args:
        method: The method.
        info: What is public about D.
        sets: D, then its neighbours.
        progress: Told of each fit.

    Returns:
        For each neighbour every release against D's, what surrounds the releases, and what comes
        out of the method.

    Raises:
        RunFailed: The method breaks on D itself.
    """
    prepare(CPU)
    comparisons: list[Comparison] = []
    with contained("the method"):
        planned = method.plan(info, BUDGET)
    public = open_public(planned.public, info, None, 0, None, Silent())
    with progress.task("replaying", len(sets), "fits") as task:
        original, *others = sets
        try:
            on_d = _fit(method, info, public, original)
        except (UserError, RunFailed):
            raise
        except Exception as error:
            raise RunFailed(
                f"the method fails before anything is changed: {type(error).__name__}: {error}"
            ) from error
        task.advance(1)
        for neighbour in others:
            try:
                fitted = _fit(method, info, public, neighbour, on_d.releases)
            except Exception as error:
                what = f"fit: {type(error).__name__}: {error}"
                comparisons.append(same_or_not(what, neighbour, False))
            else:
                comparisons += fitted.comparisons
                for what, here in fitted.outputs.items():
                    same = here == on_d.outputs.get(what)
                    comparisons.append(same_or_not(what, neighbour, same))
            task.advance(1, neighbour.name)
    return tuple(comparisons)


@dataclass(frozen=True)
class _Fitted:
    """What a fit released, and by name what a run would publish or measure of it."""

    releases: Sequence[Release]
    comparisons: Sequence[Comparison]
    outputs: dict[str, object]


def _fit(
    method: Method,
    info: PrivateSetInfo,
    public: PublicSource | None,
    neighbour: Neighbour,
    recorded: Sequence[Release] | None = None,
) -> _Fitted:
    key, streams = reproducible_key(0), Streams(0)
    private = ReplayedImages(neighbour, info, PrivacyLedger(BUDGET), key, recorded)
    with tempfile.TemporaryDirectory() as folder:
        # a cache of its own: public weights that were learned from D would hide in a shared one
        run = RunContext(
            profile=SMOKE,
            device=CPU,
            streams=streams,
            progress=Silent(),
            folder=Path(folder),
            public=public,
            cache=Path(folder) / "cache",
        )
        with closing(private), contained("the method"):
            fitted = method.fit(private, run)
    checkpoint = stored(fitted)
    outputs = _outputs(rebuilt(method, checkpoint, info, CPU), info, streams)
    if recorded is None and outputs != _outputs(fitted, info, streams):
        raise RunFailed(
            "what restore() rebuilds from state() does not give what fit returned: it gives other "
            f"{' and '.join(outputs)}, so the state leaves something out"
        )
    return _Fitted(private.releases, private.comparisons(), {"checkpoint": checkpoint, **outputs})


def _outputs(
    fitted: Sampler | Predictor, info: PrivateSetInfo, streams: Streams
) -> dict[str, object]:
    labels = uniform_labels(SAMPLES_PER_CLASS * info.classes, info.classes)
    rng = streams.public("sampling")
    if not isinstance(fitted, Sampler):
        shape = (len(labels), *info.spec.shape)
        noise = torch.randint(256, shape, generator=rng, dtype=torch.uint8)
        return {"predictions": fitted.predict(noise).tolist()}
    return {"samples": fitted.sample(labels, rng).tolist()}
