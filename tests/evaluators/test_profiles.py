from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from dpbench.api.evaluator import Need
from dpbench.api.profiles import (
    SMOKE,
    CasSettings,
    EvaluationSettings,
    ModelSelectionSettings,
    Profile,
    RealismSettings,
    ScalingSettings,
)
from dpbench.core.errors import UserError
from dpbench.core.images import Images
from dpbench.core.progress import Progress
from dpbench.core.registry import entries, load
from tests.support.quarters import CLASSES, evaluation, images

MINE = Profile(
    name="mine",
    compute=SMOKE.compute,
    samples=90,
    evaluation=EvaluationSettings(
        cas=CasSettings(steps=5, ensemble=True),
        realism=RealismSettings("small-cnn", steps=5, images=20),
        scaling=ScalingSettings(steps=5, sizes=(20, 90), ensemble=True),
        model_selection=ModelSelectionSettings("small", steps=5),
    ),
    description="a third party's",
)
# what the extractors of rows must say under it; the other evaluators do the same in every profile
SEEN = {
    "cas": {"logreg/sgd5", "mlp100/sgd5", "cnn16-32-64/sgd5", "5xcnn16-32-64/sgd5"},
    "realism": {"cnn16-32-64/sgd5 vs quarters-01234567"},
    "scaling": {"cnn16-32-64/sgd5", "5xcnn16-32-64/sgd5"},
    "model-selection": {"12 configurations", "logreg/sgd5-lr0.1-wd0.0005 on 72"},
}


class Public:
    name, identity, classes = "quarters", "0123456789abcdef", CLASSES

    def images(self, count: int, progress: Progress, classes: int | None = None) -> Images:
        return images(count, 5)


class Predictor:
    def predict(self, pixels: Tensor) -> Tensor:
        return pixels.flatten(1)[:, :CLASSES].float()


@pytest.mark.parametrize("name", sorted(entries("evaluator")))
def test_a_profile_of_a_third_party_works_in_every_evaluator(name: str, tmp_path: Path) -> None:
    evaluator = load("evaluator", name)
    predictor = Predictor() if Need.PREDICTOR in evaluator.needs else None
    context = replace(
        evaluation(tmp_path, images(90, 3), images(120, 1), images(60, 2)),
        profile=MINE,
        dataset="digits",  # whose CNN is pinned
        public=Public(),
        predictor=predictor,
    )
    rows = evaluator().evaluate(context)
    assert rows
    assert SEEN.get(name, set()) <= {row.extractor for row in rows}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CasSettings(steps=4, ensemble=True), "steps must be at least 5, .* got 4"),
        (lambda: RealismSettings("vgg", 5, 1), "network must be one of small-cnn, resnet18, got"),
        (lambda: RealismSettings("resnet18", 5, 0), "images must be at least 1, got 0"),
        (lambda: ScalingSettings(5, (50, 20), False), "sizes must be rising"),
        (lambda: ScalingSettings(5, (), False), "sizes must be rising"),
        (lambda: ModelSelectionSettings("paper", 5), "grid must be one of tiny, small, published"),
    ],
)
def test_a_profile_that_no_evaluator_can_follow_is_refused_in_one_line(
    make: object, message: str
) -> None:
    with pytest.raises(UserError, match=message) as refused:
        make()
    assert "\n" not in str(refused.value)
