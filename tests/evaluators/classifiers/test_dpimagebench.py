from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dpbench.core.images import Images, ImageSpec
from dpbench.evaluators.classifiers.dpimagebench import (
    DPIMAGEBENCH,
    dpimagebench_recipes,
    resnet,
    resnext,
)
from dpbench.evaluators.classifiers.training import train
from tests.support.digits import CPU, DIGITS, weights


@pytest.mark.parametrize(
    ("build", "channels", "parameters", "convolutions"),
    [
        # of DPImageBench's code; He et al. 2016, table 6, have 1.7M and skips without weights
        (resnet(110), 3, 1_730_714, 109 + 2),
        (resnet(164), 3, 2_605_658, 163 + 2),
        # Xie et al. 2017, table 7: 34.4M
        (resnext(29, 4), 3, 34_426_698, 28 + 3),
    ],
)
def test_classifiers_of_dpimagebench_are_as_large_as_published(
    build: Callable[[ImageSpec, int], torch.nn.Module],
    channels: int,
    parameters: int,
    convolutions: int,
) -> None:
    with torch.device("meta"):
        network = build(ImageSpec(channels, 32, 32), 10)
        assert network(torch.zeros(2, channels, 32, 32)).shape == (2, 10)
    assert sum(p.numel() for p in network.parameters()) == parameters
    found = sum(isinstance(module, torch.nn.Conv2d) for module in network.modules())
    assert found == convolutions


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("fashionmnist", (11_719, 256, True, 0.01, (0.4, 0.8))),
        ("cifar10", (95_239, 126, False, 0.1, (0.3, 0.6, 0.9))),
    ],
)
def test_classifiers_of_dpimagebench_are_trained_as_there(
    dataset: str, expected: tuple[object, ...]
) -> None:
    found = dpimagebench_recipes(dataset, 60_000)
    assert tuple(found) == DPIMAGEBENCH
    for recipe in found.values():
        steps, batch, adam, rate, drops = expected
        assert recipe.steps == pytest.approx(steps, abs=1)
        assert (recipe.batch, recipe.adam, recipe.learning_rate) == (batch, adam, rate)
        assert (recipe.drops, recipe.average, recipe.copies) == (drops, 0.9999, 1)
        assert (recipe.sgd.nesterov, recipe.sgd.momentum) == (False, 0.9)
        assert (recipe.sgd.weight_decay, recipe.sgd.schedule) == (5e-4, "constant")


@pytest.mark.parametrize("build", [resnet(8), resnext(11, 1)])
def test_classifiers_of_dpimagebench_learn_in_a_step(
    build: Callable[[ImageSpec, int], torch.nn.Module],
) -> None:
    recipe = replace(dpimagebench_recipes("digits", 8)[DPIMAGEBENCH[0]], network=build)
    few = Images(DIGITS.train.pixels[:8, :, ::2, ::2], DIGITS.train.labels[:8])
    one_step = replace(recipe, steps=1, batch=8, average=0.0)

    def trained(**changes: object) -> Tensor:
        return weights(train(replace(one_step, **changes), few, 10, 0, CPU))

    after_a_step = trained()
    assert after_a_step.isfinite().all()
    assert not torch.equal(after_a_step, trained(learning_rate=0.0))
