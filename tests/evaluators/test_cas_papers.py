from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from dpbench.api.evaluator import EvaluationContext, Need
from dpbench.api.profiles import PAPER, CasSettings
from dpbench.core.images import Images
from dpbench.core.metrics import Measurement
from dpbench.evaluators import cas
from dpbench.evaluators.cas import EVALUATOR
from dpbench.evaluators.classifiers.networks import mlp
from dpbench.evaluators.classifiers.recipe import Recipe
from dpbench.evaluators.classifiers.training import train
from tests.support.digits import DIGITS, Log, evaluation, relabelled

CLASSIFIERS = ("cas_logreg", "cas_mlp", "cas_cnn")
TRAIN, TEST = DIGITS.train, DIGITS.test


def case(
    synthetic: Images, seed: int = 0, ensemble: bool = False, **changes: object
) -> EvaluationContext:
    settings = replace(PAPER.evaluation, cas=CasSettings(steps=None, ensemble=ensemble))
    profile = replace(PAPER, evaluation=settings)
    return evaluation(synthetic, seed=seed, profile=profile, **changes)


def rows(context: EvaluationContext) -> dict[str, Measurement]:
    return {row.metric: row for row in EVALUATOR().evaluate(context)}


def values(context: EvaluationContext) -> dict[str, float | None]:
    return {metric: row.value for metric, row in rows(context).items()}


@pytest.fixture(autouse=True)
def small_wrn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The WRN and DPImageBench's classifiers of profile paper take days here."""
    small = Recipe("small", mlp, steps=13, adam=True, learning_rate=3e-4, label_smoothing=0)
    monkeypatch.setattr(cas, "wide_resnet_recipe", lambda dataset, channels: small)
    trio = dict.fromkeys(cas.DPIMAGEBENCH, small)
    monkeypatch.setattr(cas, "dpimagebench_recipes", lambda dataset, images: trio)


def test_paper_tells_why_small_images_have_no_cnn() -> None:
    found = rows(case(TRAIN[:32]))
    assert found["cas_cnn"].value is None
    assert "18 pixels" in found["cas_cnn"].reason
    for metric in ("cas_mean", "cas_cnn_low", "cas_cnn_ensemble", "cas_cnn_class*"):
        assert found[metric].value is None
    assert "18 pixels" in found["cas_cnn_selected"].reason
    assert found["cas_mlp"].value is not None and found["cas_mlp_selected"].value is not None
    assert found["cas_dpimagebench_mean"].value is not None


def test_paper_measures_all_classifiers_on_images_of_its_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cas, "MEMBERS", 2)
    test = Images(torch.zeros(20, 1, 28, 28, dtype=torch.uint8), torch.zeros(20).long())
    synthetic = Images(torch.zeros(10, 1, 28, 28, dtype=torch.uint8), torch.zeros(10).long())
    context = case(synthetic, ensemble=True, open_real=lambda need: test)
    found = values(context)
    for metric in (*CLASSIFIERS, "cas_wrn", "cas_mean", "cas_cnn_ensemble", "cas_cnn_class0"):
        assert found[metric] == 100
    for metric in (*cas.SELECTED, *cas.DPIMAGEBENCH, "cas_dpimagebench_mean"):
        assert found[metric] == 100


class SpiedTrain:
    """``train`` that writes down what each metric's network learns from and is selected by."""

    def __init__(self) -> None:
        self.seen: dict[str, list[set[bytes] | None]] = {}

    def __call__(
        self, recipe: Recipe, images: Images, *others: Any, held_out: Images | None, **more: Any
    ) -> torch.nn.Module:
        parts = (images, held_out)
        self.seen[recipe.id] = [
            None if part is None else {image.numpy().tobytes() for image in part.pixels}
            for part in parts
        ]
        return train(recipe, images, *others, held_out=held_out, **more)


def test_selection_sees_a_tenth_of_the_synthetic_images_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spied, log = SpiedTrain(), Log()
    monkeypatch.setattr(cas, "train", spied)

    def open_real(need: Need) -> Images:
        log.events.append("open")
        return TEST

    synthetic = TRAIN[:100]
    images = {image.numpy().tobytes() for image in synthetic.pixels}
    assert len(images) == 100
    found = rows(case(synthetic, open_real=open_real, progress=log))
    assert log.events.count("open") == 1 and log.events.index("open") > log.events.index("step")
    assert "step" not in log.events[log.events.index("open") :]
    assert log.done == log.announced
    for name in ("cas_logreg", "cas_mlp"):
        learnt, held_out = spied.seen[found[f"{name}_selected"].extractor]
        assert learnt is not None and held_out is not None
        assert (len(learnt), len(held_out)) == (90, 10)
        assert learnt | held_out == images and not learnt & held_out
        assert spied.seen[found[name].extractor] == [images, None]


def test_selected_ones_stand_beside_the_others_and_in_no_mean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # fits digits, and is faster
    monkeypatch.setattr("dpbench.evaluators.classifiers.dpdm.dpdm_cnn", mlp)
    monkeypatch.setattr("dpbench.evaluators.classifiers.dpdm.DPDM_CNN_SMALLEST_SIDE", 1)
    found = rows(case(relabelled(TRAIN, 0.3)[:60]))
    assert found["cas_mean"].value == pytest.approx(sum(found[n].value for n in CLASSIFIERS) / 3)
    assert found["cas_mean"].value != pytest.approx(sum(found[n].value for n in cas.SELECTED) / 3)
    specs = {spec.name: spec for spec in EVALUATOR.metrics}
    for name, selected in zip(CLASSIFIERS, cas.SELECTED, strict=True):
        row, spec = found[selected], specs[selected]
        assert row.extractor == f"{found[name].extractor}-best-on-synthetic"
        assert (row.unit, row.higher_is_better) == (spec.unit, spec.higher_is_better) == ("%", True)
        assert (row.n, row.n_real, row.split) == (60, len(TEST), "test")
        assert row.seed != found[name].seed


def test_selection_follows_the_seed() -> None:
    first, again, other = (values(case(relabelled(TRAIN, 0.3)[:60], seed)) for seed in (0, 0, 1))
    assert first == again
    assert any(first[name] != other[name] for name in cas.SELECTED)


def test_fewer_than_ten_images_cannot_select() -> None:
    found = rows(case(TRAIN[:9]))
    assert found["cas_mlp"].value is not None
    assert "at least 10 images" in found["cas_mlp_selected"].reason
