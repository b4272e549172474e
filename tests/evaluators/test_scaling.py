from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dpbench.api.evaluator import EvaluationContext, Need
from dpbench.api.profiles import PAPER, PROFILES, SMOKE
from dpbench.core.images import Images
from dpbench.core.metrics import Measurement
from dpbench.core.streams import Streams
from dpbench.evaluators import scaling
from dpbench.evaluators.classifiers.recipe import Recipe
from dpbench.evaluators.scaling import EVALUATOR, recipe
from tests.support.quarters import CLASSES, evaluation, images


def case(cache: Path, synthetic: Images, **changes: object) -> EvaluationContext:
    return evaluation(cache, synthetic, images(120, 1), images(200, 2), **changes)


def rows(context: EvaluationContext) -> dict[str, Measurement]:
    return {row.metric: row for row in EVALUATOR().evaluate(context)}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def found(cache: Path) -> dict[str, Measurement]:
    return rows(case(cache, images(200, 3)))


def test_every_size_is_a_row_of_either_curve(found: dict[str, Measurement]) -> None:
    sizes = SMOKE.evaluation.scaling.sizes
    assert list(found) == [
        *(f"scaling_cas_n{size}" for size in sizes),
        *(f"scaling_cas_real_n{size}" for size in sizes),
    ]
    declared = [spec.name for spec in EVALUATOR.metrics]
    assert all(any(fnmatch.fnmatchcase(name, spec) for spec in declared) for name in found)
    assert [found[f"scaling_cas_n{size}"].n for size in sizes] == list(sizes)
    assert found["scaling_cas_real_n50"].n == 0
    assert {(row.split, row.n_real) for row in found.values()} == {("test", 200)}


def test_an_ensemble_is_five_networks_that_differ_in_the_order_of_minibatches(
    cache: Path, found: dict[str, Measurement], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, told = [], []

    def train(*arguments: Any, order: int, **more: Any) -> nn.Module:
        trained.append((arguments[3], order))
        return scaling_train(*arguments, order=order, **more)

    def ensemble(members: Sequence[Tensor]) -> Tensor:
        told.append(len({member.sum().item() for member in members}))
        return torch.stack(list(members)).softmax(2).mean(0).argmax(1)

    scaling_train = scaling.train
    monkeypatch.setattr(scaling, "train", train)
    monkeypatch.setattr(scaling, "ensemble_prediction", ensemble)
    settings = replace(SMOKE.evaluation.scaling, ensemble=True)
    profile = replace(SMOKE, evaluation=replace(SMOKE.evaluation, scaling=settings))
    together = rows(case(cache, images(60, 3), profile=profile))
    (seed,) = {seed for seed, _ in trained}
    assert len({order for _, order in trained}) == len(trained) == 5
    assert told == [5], "all five are another network"
    row = together["scaling_cas_ensemble_n50"]
    assert row.value is not None and row.extractor == f"5x{recipe(SMOKE.evaluation.scaling).id}"
    assert together["scaling_cas_ensemble_n200"].reason == "60 images are there, not 200"
    alone = rows(case(cache, images(60, 3)))["scaling_cas_n50"]
    assert together["scaling_cas_n50"] == alone, "the first member is the single network"


def test_more_images_teach_more(found: dict[str, Measurement]) -> None:
    assert found["scaling_cas_n200"].value > found["scaling_cas_n50"].value
    assert found["scaling_cas_n200"].value > 60


def test_a_size_that_is_not_there_is_a_row_with_that_reason(found: dict[str, Measurement]) -> None:
    missing = found["scaling_cas_real_n200"]
    assert (missing.value, missing.reason) == (None, "120 images are there, not 200")


def test_images_of_the_wrong_class_teach_nothing(
    cache: Path, found: dict[str, Measurement]
) -> None:
    right = images(200, 3)
    wrong = Images(right.pixels, (right.labels + 1) % CLASSES)
    assert rows(case(cache, wrong))["scaling_cas_n200"].value < 15


def test_the_curve_of_real_images_is_trained_once_for_all_runs(
    cache: Path, found: dict[str, Measurement], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "dpbench.evaluators.classifiers.reference.train", lambda *_: pytest.fail("trained")
    )
    again = rows(case(cache, images(50, 4), streams=Streams(1)))
    for size in SMOKE.evaluation.scaling.sizes:
        name = f"scaling_cas_real_n{size}"
        assert again[name] == found[name]


@pytest.mark.parametrize("changed", [Need.REAL_TRAIN, Need.REAL_TEST])
def test_other_real_images_are_not_taken_from_what_was_kept(
    cache: Path, found: dict[str, Measurement], monkeypatch: pytest.MonkeyPatch, changed: Need
) -> None:
    trained = []

    def train(recipe: Recipe, part: Images, classes: int, *_: object) -> nn.Module:
        trained.append(len(part))
        return untrained()

    monkeypatch.setattr("dpbench.evaluators.classifiers.reference.train", train)
    real = {Need.REAL_TRAIN: images(120, 1), Need.REAL_TEST: images(200, 2)}
    real[changed] = images(len(real[changed]), 7)
    rows(case(cache, images(40, 3), open_real=real.__getitem__))
    assert trained == [50]


# What the trainings of a curve must have in common, and how a curve that has not would look.

Trained = list[tuple[int, Images, int]]  # steps, images, seed


def trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """Of the curve of synthetic images."""
    seen: Trained = []

    def train(
        recipe: Recipe, part: Images, classes: int, seed: int, *_: object, **__: object
    ) -> object:
        seen.append((recipe.steps, part, seed))
        return untrained()

    monkeypatch.setattr(scaling, "train", train)
    monkeypatch.setattr("dpbench.evaluators.classifiers.reference.train", lambda *_: untrained())
    rows(case(tmp_path, images(400, 3)))  # more than the largest size, so that there is a choice
    return seen


def untrained() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES))


def wrong_about(seen: Trained) -> set[str]:
    wrong = set()
    if len({steps for steps, _, _ in seen}) > 1:
        wrong.add("steps")
    if len({seed for _, _, seed in seen}) > 1:
        wrong.add("seeds")
    contents = [{bytes(image.numpy().tobytes()) for image in part.pixels} for _, part, _ in seen]
    if not all(small < large for small, large in zip(contents, contents[1:], strict=False)):
        wrong.add("not nested")
    for _, part, _ in seen:
        counts = part.labels.bincount(minlength=CLASSES)
        if counts.max() - counts.min() > 1:
            wrong.add("not stratified")
    return wrong


def test_only_the_images_differ_along_a_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = trainings(tmp_path, monkeypatch)
    assert [len(part) for _, part, _ in seen] == list(SMOKE.evaluation.scaling.sizes)
    assert wrong_about(seen) == set()


def drawn_anew(pool: Images, sizes: Iterable[int], rng: torch.Generator) -> dict[int, Images]:
    return {
        size: pool[torch.cat([order[: size // 4] for order in by_class(pool, rng)])]
        for size in sizes
    }


def by_class(pool: Images, rng: torch.Generator) -> list[Tensor]:
    return [
        members[torch.randperm(len(members), generator=rng)]
        for members in ((pool.labels == label).nonzero().squeeze(1) for label in range(CLASSES))
    ]


def blind(pool: Images, sizes: Iterable[int], rng: torch.Generator) -> dict[int, Images]:
    order = torch.randperm(len(pool), generator=rng)
    return {size: pool[order[:size]] for size in sizes}


@pytest.mark.parametrize(
    ("broken", "caught"), [(drawn_anew, "not nested"), (blind, "not stratified")]
)
def test_subsets_that_are_not_as_said_are_caught(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    broken: Callable[..., dict[int, Images]],
    caught: str,
) -> None:
    monkeypatch.setattr(scaling, "nested_subsets", broken)
    assert caught in wrong_about(trainings(tmp_path, monkeypatch))


def test_steps_that_grow_with_the_images_are_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = trainings(tmp_path, monkeypatch)
    epochs = [(len(part) // 10, part, seed) for _, part, seed in seen]
    assert wrong_about(epochs) == {"steps"}


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_a_profile_has_images_for_some_size(profile: str) -> None:
    settings = PROFILES[profile].evaluation.scaling
    assert min(settings.sizes) <= PROFILES[profile].samples
    assert recipe(settings).id == f"cnn16-32-64/sgd{settings.steps}"


def test_the_paper_goes_from_50k_to_a_million() -> None:
    sizes = PAPER.evaluation.scaling.sizes
    assert (sizes[0], sizes[-1]) == (50_000, 1_000_000)
