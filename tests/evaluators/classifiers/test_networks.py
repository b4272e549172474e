from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from dpbench.core.images import ImageSpec
from dpbench.evaluators.classifiers.dpdm import dpdm_cnn
from dpbench.evaluators.classifiers.networks import (
    logistic_regression,
    mlp,
    resnet18,
    resnet50,
    small_cnn,
)
from dpbench.evaluators.classifiers.vgg import vgg16
from dpbench.evaluators.classifiers.wide_resnet import wide_resnet


@pytest.mark.parametrize("build", [logistic_regression, mlp, small_cnn])
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 16, 16), (1, 28, 28), (3, 32, 32), (3, 20, 30)])
def test_networks_take_images_of_any_size(
    build: Callable[[ImageSpec, int], torch.nn.Module], shape: tuple[int, int, int]
) -> None:
    assert build(ImageSpec(*shape), 7)(torch.zeros(2, *shape)).shape == (2, 7)


def test_classifiers_of_dpdm_have_their_published_sizes() -> None:
    spec = ImageSpec(1, 28, 28)
    assert [tuple(p.shape) for p in mlp(spec, 10).parameters() if p.ndim == 2] == [
        (100, 784),
        (10, 100),
    ]
    assert [tuple(p.shape) for p in dpdm_cnn(spec, 10).parameters() if p.ndim == 2] == [
        (128, 1152),
        (10, 128),
    ]


def test_the_papers_networks_have_the_published_sizes() -> None:
    def parameters(network: torch.nn.Module) -> int:
        return sum(p.numel() for p in network.parameters())

    spec = ImageSpec(3, 32, 32)
    with torch.device("meta"):  # no memory and no time
        # Zagoruyko and Komodakis 2016 give WRN-28-10 as 36.5M; widths and depth make this 23.4M
        assert parameters(wide_resnet(28, 8)(spec, 10)) == pytest.approx(23.4e6, rel=0.005)
        # torchvision's vgg16_bn has 14,723,136 behind its convolutions' biases, 4224, are off
        assert parameters(vgg16(spec, 10)) == 14_723_136 - 4224 + 5130
    # torchvision's 25,557,032 of 1000 classes and 3 x 7 x 7 filters, with other ends
    expected = 25_557_032 - 64 * 3 * 49 + 64 * 27 - 2049 * 1000 + 2049 * 10
    assert parameters(resnet50(spec, 10)) == expected


def test_the_small_ones_of_the_papers_networks_take_images_of_any_size() -> None:
    for side in (8, 28, 32):
        assert vgg16(ImageSpec(1, side, side), 3)(torch.zeros(2, 1, side, side)).shape == (2, 3)


def test_resnet18_keeps_the_resolution_of_small_images() -> None:
    network = resnet18(ImageSpec(1, 28, 28), 2).eval()
    stem = network.maxpool(network.act1(network.bn1(network.conv1(torch.zeros(1, 1, 28, 28)))))
    assert stem.shape == (1, 64, 28, 28)
    # torchvision's 11,689,512 of 1000 classes and 3 x 7 x 7 filters, with other ends
    expected = 11_689_512 - 64 * 3 * 49 + 64 * 9 - 513 * 1000 + 513 * 2
    assert sum(p.numel() for p in network.parameters()) == expected
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 2)
