from __future__ import annotations

import pytest
import torch

from dpbench.core.images import ImageSpec
from dpbench.evaluators.classifiers.wide_resnet import wide_resnet, wide_resnet_recipe
from dpbench.training.augmentation import Augmentation


@pytest.mark.parametrize(
    ("depth", "width", "channels", "parameters"),
    [
        # of the code of Zagoruyko and Komodakis: 8.9M and 36.5M in their table 4
        (40, 4, 3, 8_949_210),
        (28, 10, 3, 36_479_194),
    ],
)
def test_wide_resnets_are_as_large_as_published(
    depth: int, width: int, channels: int, parameters: int
) -> None:
    with torch.device("meta"):
        network = wide_resnet(depth, width)(ImageSpec(channels, 32, 32), 10)
        assert network(torch.zeros(2, channels, 32, 32)).shape == (2, 10)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert sum(isinstance(m, torch.nn.Conv2d) for m in network.modules()) == depth - 4 + 1 + 3


@pytest.mark.parametrize(
    ("dataset", "channels", "expected"),
    [
        ("mnist", 1, (10_000, 64, 5e-4, 0.05, "constant", Augmentation(crop=4), 1)),
        ("fashionmnist", 1, (10_000, 64, 5e-4, 0.05, "constant", Augmentation(crop=4), 1)),
        ("cifar10", 3, (20_000, 4096, 5e-4, 0.0, "cosine", Augmentation(True, 4, 0.2), 16)),
        ("camelyon17", 3, (4_000, 512, 1e-5, 0.0, "cosine", Augmentation(True, 4, 0.2), 16)),
    ],
)
def test_the_wide_resnet_is_trained_by_table_4(
    dataset: str, channels: int, expected: tuple[object, ...]
) -> None:
    recipe = wide_resnet_recipe(dataset, channels)
    assert (
        *(recipe.steps, recipe.batch, recipe.sgd.weight_decay, recipe.label_smoothing),
        *(recipe.sgd.schedule, recipe.augmentation, recipe.copies),
    ) == expected
    assert (recipe.adam, recipe.learning_rate, recipe.average) == (False, 0.1, 0.9999)
    with torch.device("meta"):
        network = recipe.network(ImageSpec(channels, 32, 32), 10)
    dropout = {m.p for m in network.modules() if isinstance(m, torch.nn.Dropout)}
    assert dropout == {0.5 if channels == 1 else 0.0}
