from __future__ import annotations

from collections import Counter

import pytest
import torch

from dpbench.api.profiles import LAPTOP, PAPER, PROFILES
from dpbench.core.images import ImageSpec
from dpbench.evaluators.classifiers.configurations import grid
from dpbench.evaluators.classifiers.recipe import Recipe
from dpbench.training.augmentation import PLAIN, Augmentation


def test_laptop_has_three_families_of_four() -> None:
    assert Counter(each.family for each in grid(LAPTOP.evaluation.model_selection)) == {
        "logreg": 4,
        "mlp100": 4,
        "cnn16-32-64": 4,
    }


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_names_are_unique_and_begin_with_the_family(profile: str) -> None:
    configurations = grid(PROFILES[profile].evaluation.model_selection)
    assert len({each.name for each in configurations}) == len(configurations)
    assert len({each.recipe.id for each in configurations}) == len(configurations)
    assert all(each.name.split("_")[0] == each.family for each in configurations)


MOVED = Augmentation(flip=True, crop=4)


def test_the_papers_33_configurations_are_those_of_its_table_6() -> None:
    assert len(grid(PAPER.evaluation.model_selection)) == 33
    by_family: dict[str, list[Recipe]] = {}
    for each in grid(PAPER.evaluation.model_selection):
        by_family.setdefault(each.family, []).append(each.recipe)
    table = {
        "resnet50": ({5e-4, 2e-3, 4e-3}, {0, 0.1, 0.01}, (0.0, "cosine", 0.05, 16, MOVED)),
        "vgg16": (
            {0.07, 0.04, 0.025, 0.01, 5e-3},
            {0, 1e-3, 5e-3},
            (0.9, "constant", 0.0, 1, PLAIN),
        ),
        "wrn28-8": ({0.01, 0.02, 0.03}, {0, 0.1, 0.01}, (0.9, "cosine", 0.0, 16, MOVED)),
    }
    assert set(by_family) == set(table)
    for family, (rates, decays, others) in table.items():
        recipes = by_family[family]
        assert {(r.learning_rate, r.sgd.weight_decay) for r in recipes} == {
            (rate, decay) for rate in rates for decay in decays
        }
        assert len(recipes) == len(rates) * len(decays)
        for r in recipes:
            said = (r.sgd.momentum, r.sgd.schedule, r.label_smoothing, r.copies, r.augmentation)
            assert said == others
            assert (r.steps, r.average, r.adam, r.sgd.nesterov) == (15_000, 0.9999, False, False)


def test_the_papers_families_are_their_networks() -> None:
    spec, sizes = ImageSpec(3, 32, 32), {}
    for each in grid(PAPER.evaluation.model_selection):
        if each.family not in sizes:
            with torch.device("meta"):
                network = each.recipe.network(spec, 10)
            sizes[each.family] = sum(p.numel() for p in network.parameters()) / 1e6
    assert sizes == pytest.approx({"resnet50": 23.5, "vgg16": 14.7, "wrn28-8": 23.4}, rel=0.01)
