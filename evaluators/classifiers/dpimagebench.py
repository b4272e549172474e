"""The three classifiers of DPImageBench (Gong et al. 2025), for comparability with its tables."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dpbench.core.images import ImageSpec

from .recipe import Recipe, Sgd
from .wide_resnet import convolution, wide_resnet


class Residual(nn.Module):
    """Sum of layers and a skip connection, followed by a ReLU.

    Args:
        layers: Map ``inputs`` to ``outputs`` channels.
        inputs: Number of input channels.
        outputs: Number of output channels; if it differs, the skip is a normalised convolution.
        stride: Total stride of the layers.
    """

    def __init__(self, layers: nn.Module, inputs: int, outputs: int, stride: int) -> None:
        """Draw the initial weights of the skip."""
        super().__init__()
        self.layers = layers
        self.skip = (
            nn.Identity() if inputs == outputs else _normalised(inputs, outputs, 1, stride=stride)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inputs, H, W)`` to ``(B, outputs, ceil(H / stride), ceil(W / stride))``."""
        return torch.relu(self.skip(x) + self.layers(x))


def resnet(depth: int) -> Callable[[ImageSpec, int], nn.Module]:
    """Return a builder of ResNet-depth for small images, with convolutions as skips.

    He et al. 2016, section 4.2.

    Args:
        depth: 6n + 2 for n blocks of two convolutions in each of the three groups.
    """

    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        first = _normalised(inputs, outputs, 3, stride=stride)
        layers = nn.Sequential(first, nn.ReLU(), _normalised(outputs, outputs, 3))
        return Residual(layers, inputs, outputs, stride)

    def build(spec: ImageSpec, classes: int) -> nn.Module:
        return nn.Sequential(
            *_groups(spec.channels, 16, (16, 32, 64), (depth - 2) // 6, block),
            nn.Linear(64, classes),
        )

    return build


def resnext(depth: int, width: int) -> Callable[[ImageSpec, int], nn.Module]:
    """Return a builder of ResNeXt-depth of 8 x 64 channels for small images.

    Xie et al. 2017, section 5.2.

    Args:
        depth: 9n + 2 for n blocks of three convolutions in each of the three groups; a remainder is
            ignored.
        width: Multiplies the groups' output channels 64, 128 and 256; 4 in the paper.
    """
    outputs_of = (64 * width, 128 * width, 256 * width)

    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        inside = 8 * outputs // width
        layers = nn.Sequential(
            _normalised(inputs, inside, 1),
            nn.ReLU(),
            _normalised(inside, inside, 3, stride=stride, groups=8),
            nn.ReLU(),
            _normalised(inside, outputs, 1),
        )
        return Residual(layers, inputs, outputs, stride)

    def build(spec: ImageSpec, classes: int) -> nn.Module:
        head = nn.Linear(outputs_of[-1], classes)
        nn.init.kaiming_normal_(head.weight)
        nn.init.zeros_(head.bias)
        return nn.Sequential(*_groups(spec.channels, 64, outputs_of, (depth - 2) // 9, block), head)

    return build


def _groups(
    channels: int,
    stem: int,
    outputs_of: tuple[int, ...],
    blocks: int,
    block: Callable[[int, int, int], nn.Module],
) -> list[nn.Module]:
    """Return all layers but the head: from images of any size to mean activations."""
    layers: list[nn.Module] = [_normalised(channels, stem, 3), nn.ReLU()]
    inputs = stem
    for group, outputs in enumerate(outputs_of):
        for number in range(blocks):
            layers.append(block(inputs, outputs, 2 if group and not number else 1))
            inputs = outputs
    return [*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()]


def _normalised(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Module:
    return nn.Sequential(
        convolution(inputs, outputs, kernel, stride, groups), nn.BatchNorm2d(outputs)
    )


def dpimagebench_recipes(dataset: str, images: int) -> dict[str, Recipe]:
    """Return the recipe of each classifier, by the name of its metric.

    They are those of DPImageBench's ``evaluation/evaluator.py`` (revision 565f8d7); we have never
    trained them at full size. CIFAR has ResNet-164, WRN-28-10 and a ResNeXt of depth 28 and width
    10: SGD at .1, 200 epochs, batch 126, as in that file. All other data sets have ResNet-110,
    WRN-40-4 and ResNeXt-29: Adam at .01, 50 epochs, batch 256. The learning rate falls to a fifth
    every 60 or 20 epochs; there is no augmentation; weights are averaged with decay .9999.

    Three things differ. DPImageBench trains on 55,000 of 60,000 synthetic images and takes the
    epoch that is best on the rest; here all are trained on and the last epoch is taken. Its
    averaged weights use the batch normalisation of the last ones; here they have statistics of
    their own. It skips ResNeXt for images above 32 pixels, where it normalises parts of a
    minibatch.

    Args:
        dataset: Name of the data set.
        images: Number of images to train on.
    """
    if dataset.startswith("cifar"):
        networks = {
            "resnet-164": resnet(164),
            "wrn-28-10": wide_resnet(28, 10, dropout=0.3),
            "resnext-28-10": resnext(28, 10),
        }
        epochs, batch, adam, learning_rate, drop_every = 200, 126, False, 0.1, 60
    else:
        networks = {
            "resnet-110": resnet(110),
            "wrn-40-4-dropout.3": wide_resnet(40, 4, dropout=0.3),
            "resnext-29": resnext(29, 4),
        }
        epochs, batch, adam, learning_rate, drop_every = 50, 256, True, 0.01, 20
    return {
        metric: Recipe(
            f"{name}/{'adam' if adam else 'sgd'}-{epochs}epochs",
            network,
            steps=-(-epochs * images // batch),
            adam=adam,
            learning_rate=learning_rate,
            label_smoothing=0.0,
            sgd=Sgd(nesterov=False, schedule="constant"),
            batch=batch,
            average=0.9999,
            drops=tuple(epoch / epochs for epoch in range(drop_every, epochs, drop_every)),
        )
        for metric, (name, network) in zip(DPIMAGEBENCH, networks.items(), strict=True)
    }


DPIMAGEBENCH = ("cas_dpimagebench_resnet", "cas_dpimagebench_wrn", "cas_dpimagebench_resnext")
