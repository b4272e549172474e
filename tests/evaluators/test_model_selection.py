from __future__ import annotations

import fnmatch
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from dpbench.api.evaluator import EvaluationContext
from dpbench.api.profiles import SMOKE, ModelSelectionSettings
from dpbench.core.images import Images
from dpbench.core.metrics import Measurement
from dpbench.core.streams import Streams
from dpbench.evaluators import model_selection
from dpbench.evaluators.classifiers.agreement import select
from dpbench.evaluators.classifiers.configurations import grid
from dpbench.evaluators.classifiers.prediction import accuracy
from dpbench.evaluators.classifiers.recipe import Recipe
from dpbench.evaluators.classifiers.training import train
from dpbench.evaluators.model_selection import EVALUATOR, compared
from tests.support.quarters import CLASSES, evaluation, images

KINDS = ("synthetic", "transfer", "real", "reseeded")


def case(cache: Path, synthetic: Images, **changes: object) -> EvaluationContext:
    return evaluation(cache, synthetic, images(240, 1), images(120, 2), **changes)


def rows(context: EvaluationContext) -> dict[str, Measurement]:
    return {row.metric: row for row in EVALUATOR().evaluate(context)}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def found(cache: Path) -> dict[str, Measurement]:
    return rows(case(cache, images(200, 3)))


def accuracies(found: dict[str, Measurement], kind: str) -> list[float]:
    return [
        found[f"model_selection_{kind}_{each.name}"].value
        for each in grid(SMOKE.evaluation.model_selection)
    ]


def test_every_configuration_has_its_four_accuracies(found: dict[str, Measurement]) -> None:
    for kind in KINDS:
        assert all(0 <= value <= 100 for value in accuracies(found, kind))
    declared = [spec.name for spec in EVALUATOR.metrics]
    for name, row in found.items():
        (spec,) = (spec for spec in declared if fnmatch.fnmatchcase(name, spec))
        assert row.unit == next(s.unit for s in EVALUATOR.metrics if s.name == spec)
    assert {s.name for s in EVALUATOR.metrics if "*" not in s.name} <= set(found)


def test_rows_say_what_they_were_measured_on(found: dict[str, Measurement]) -> None:
    of = {kind: found[f"model_selection_{kind}_logreg_lr0.1_wd0.0005"] for kind in KINDS}
    assert {kind: (row.n, row.n_real, row.split) for kind, row in of.items()} == {
        "synthetic": (200, 0, ""),
        "transfer": (200, 120, "test"),
        "real": (0, 120, "test"),
        "reseeded": (0, 120, "test"),
    }
    assert {row.extractor for row in of.values()} == {"logreg/sgd20-lr0.1-wd0.0005 on 160"}


def test_the_selected_configuration_is_judged_by_its_rows(found: dict[str, Measurement]) -> None:
    for setting, kinds in {"a": ("synthetic", "transfer"), "b": ("synthetic", "real")}.items():
        selecting, judging = (np.array(accuracies(found, kind)) for kind in kinds)
        expected = select(selecting, judging)
        assert found[f"model_selection_{setting}_regret"].value == expected.regret
        assert found[f"model_selection_{setting}_rank"].value == expected.rank


@pytest.mark.parametrize("count", [1, 4])
def test_too_few_images_are_a_reason_that_says_how_many_are_needed(cache: Path, count: int) -> None:
    found = rows(case(cache, images(count, 3)))
    reason = f"needs at least 5 images, to hold one in 5 out; got {count}"
    assert {row.reason for row in found.values()} == {reason}
    assert len(found) == len(EVALUATOR.metrics)


def test_few_configurations_have_no_rank_correlation(found: dict[str, Measurement]) -> None:
    for setting in ("a", "b", "ceiling"):
        for name in ("spearman", "spearman_low", "spearman_high", "kendall"):
            row = found[f"model_selection_{setting}_{name}"]
            reason = "4 configurations; a rank correlation needs 12"
            assert (row.value, row.reason) == (None, reason)
        assert found[f"model_selection_{setting}_kendall_within_logreg"].value is None


def test_twelve_configurations_have_a_rank_correlation(tmp_path: Path) -> None:
    settings = ModelSelectionSettings("small", steps=8)
    short = grid(settings)
    profile = replace(SMOKE, evaluation=replace(SMOKE.evaluation, model_selection=settings))
    found = rows(case(tmp_path, images(200, 3), profile=profile))
    for setting, kinds in {"a": ("synthetic", "transfer"), "b": ("synthetic", "real")}.items():
        lists = [[found[f"model_selection_{k}_{each.name}"].value for each in short] for k in kinds]
        value = {
            end: found[f"model_selection_{setting}_spearman{end}"].value
            for end in ("", "_low", "_high", "_within_mlp100")
        }
        assert value[""] == pytest.approx(spearmanr(*lists).statistic)
        assert value["_low"] < value[""] < value["_high"]
        within = spearmanr(*(each[4:8] for each in lists)).statistic
        assert value["_within_mlp100"] == pytest.approx(within)


def test_synthetic_images_without_the_classes_make_another_choice(
    cache: Path, found: dict[str, Measurement]
) -> None:
    right = images(200, 3)
    wrong = rows(case(cache, Images(right.pixels, (right.labels + 1) % CLASSES)))
    # what is trained on wrong labels is right about held-out wrong labels, and wrong about real
    best = int(np.argmax(accuracies(wrong, "synthetic")))
    assert accuracies(wrong, "synthetic")[best] > 60
    assert accuracies(wrong, "transfer")[best] < 20
    assert accuracies(wrong, "real") == accuracies(found, "real")


def test_held_out_synthetic_images_are_not_trained_on(
    cache: Path, found: dict[str, Measurement], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, tested = [], []

    def spied_train(recipe: Recipe, part: Images, *others: object) -> torch.nn.Module:
        trained.append({image.numpy().tobytes() for image in part.pixels})
        return train(recipe, part, *others)  # type: ignore[arg-type]

    def spied_accuracy(network: torch.nn.Module, part: Images, device: torch.device) -> float:
        tested.append({image.numpy().tobytes() for image in part.pixels})
        return accuracy(network, part, device)

    monkeypatch.setattr(model_selection, "train", spied_train)
    monkeypatch.setattr(model_selection, "accuracy", spied_accuracy)
    rows(case(cache, images(200, 3)))
    assert {len(part) for part in trained} == {160}
    assert {len(part) for part in tested} == {40, 120}
    assert all(not (first & second) for first in trained for second in tested)


def test_real_accuracies_are_kept_between_runs(
    cache: Path, found: dict[str, Measurement], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "dpbench.evaluators.classifiers.reference.train", lambda *_: pytest.fail("trained")
    )
    again = rows(case(cache, images(200, 8), streams=Streams(5)))
    for kind in ("real", "reseeded"):
        assert accuracies(again, kind) == accuracies(found, kind)
    assert accuracies(again, "synthetic") != accuracies(found, "synthetic")


def test_the_ceiling_is_trained_with_another_seed(found: dict[str, Measurement]) -> None:
    assert accuracies(found, "real") != accuracies(found, "reseeded")


def test_a_family_may_agree_less_than_all() -> None:
    """Families far apart make a high rho even where each is the wrong way round."""
    families = ["one"] * 6 + ["two"] * 6
    x = np.concatenate([np.arange(6.0), 100 + np.arange(6.0)])
    y = np.concatenate([-np.arange(6.0), 100 - np.arange(6.0)])
    found = compared(x, y, families, np.random.default_rng(0))
    assert found["spearman", ""] > 0.5
    assert found["spearman_within_*", "one"] == pytest.approx(-1)
    assert found["kendall_within_*", "two"] == pytest.approx(-1)
    assert found["spearman_low", ""] <= found["spearman", ""] <= found["spearman_high", ""]
    eleven = compared(x[1:], y[1:], families[1:], np.random.default_rng(0))
    assert eleven["spearman", ""] == "11 configurations; a rank correlation needs 12"
