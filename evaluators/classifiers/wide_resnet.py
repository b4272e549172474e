"""WRN-40-4 and its training by Ghalebikesabi et al. 2023."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor, nn

from dpbench.core.images import ImageSpec
from dpbench.training.augmentation import Augmentation
from dpbench.training.wide_resnet import STEM, wide_resnet_blocks

from .recipe import Recipe, Sgd


class Block(nn.Module):
    """Residual block: batch normalisation, ReLU and convolution, twice.

    Args:
        inputs: Number of input channels.
        outputs: Number of output channels; if it differs, the skip is a convolution after the first
            ReLU.
        stride: Stride of the first convolution.
        dropout: Dropout probability between the convolutions.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        """Draw the initial weights."""
        super().__init__()
        self.activation = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU())
        self.residual = nn.Sequential(
            convolution(inputs, outputs, 3, stride),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Dropout(dropout),
            convolution(outputs, outputs, 3),
        )
        same = inputs == outputs
        self.skip = None if same else convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inputs, H, W)`` to ``(B, outputs, ceil(H / stride), ceil(W / stride))``."""
        activated = self.activation(x)
        skipped = x if self.skip is None else self.skip(activated)
        result: Tensor = skipped + self.residual(activated)
        return result


def wide_resnet(
    depth: int, width: int, dropout: float = 0.0
) -> Callable[[ImageSpec, int], nn.Module]:
    """Return a builder of WRN-depth-width (Zagoruyko and Komodakis 2016, table 1).

    Args:
        depth: 6n + 4 for n blocks in each of the three groups.
        width: Multiplies the groups' channels 16, 32 and 64.
        dropout: Dropout probability in every block.
    """

    def build(spec: ImageSpec, classes: int) -> nn.Module:
        first = convolution(spec.channels, STEM, 3)
        shapes = wide_resnet_blocks(depth, width)
        blocks = [Block(shape.inputs, shape.outputs, shape.stride, dropout) for shape in shapes]
        channels = shapes[-1].outputs
        head = nn.Linear(channels, classes)
        nn.init.zeros_(head.bias)
        pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return nn.Sequential(first, *blocks, nn.BatchNorm2d(channels), nn.ReLU(), *pool, head)

    return build


def convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    """Return a convolution without bias that keeps the size, with He initialisation (fan-out)."""
    layer = nn.Conv2d(
        inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
    )
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


MNIST = Recipe(
    "wrn-40-4-mnist/sgd10000",
    wide_resnet(40, 4, dropout=0.5),
    steps=10_000,
    adam=False,
    learning_rate=0.1,
    label_smoothing=0.05,
    batch=64,
    sgd=Sgd(schedule="constant"),
    average=0.9999,
    augmentation=Augmentation(crop=4),
)
CIFAR10 = Recipe(
    "wrn-40-4-cifar10/sgd20000",
    wide_resnet(40, 4),
    steps=20_000,
    adam=False,
    learning_rate=0.1,
    label_smoothing=0.0,
    batch=4096,
    sgd=Sgd(schedule="cosine"),
    average=0.9999,
    augmentation=Augmentation(flip=True, crop=4, color=0.2),
    copies=16,
)
CAMELYON17 = replace(
    CIFAR10,
    id="wrn-40-4-camelyon17/sgd4000",
    steps=4_000,
    sgd=Sgd(weight_decay=1e-5, schedule="cosine"),
    batch=512,
)


def wide_resnet_recipe(dataset: str, channels: int) -> Recipe:
    """Return the recipe of Ghalebikesabi et al. 2023 (arXiv 2302.13861), table 4, for a data set.

    The table has MNIST, CIFAR-10 and Camelyon17; other data sets take the recipe of MNIST if grey
    and that of CIFAR-10 otherwise. The paper leaves these choices to us: batch normalisation,
    crops of up to 4 pixels, color factors within 20%, Nesterov momentum of .9 with a weight decay
    as torch's SGD adds it. Two things differ: the paper's classifier for Camelyon17 was pre-trained
    on ImageNet32, here it starts from random weights; and the paper's text names rotations for
    Camelyon17 that the table does not.
    """
    known = {"cifar10": CIFAR10, "camelyon17": CAMELYON17}
    return known.get(dataset, MNIST if channels == 1 else CIFAR10)
