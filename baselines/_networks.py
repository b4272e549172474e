"""Classifiers without batch normalisation, so that no example influences another.

All map images ``(B, C, H, W)``, float32 in [-1, 1], to logits ``(B, classes)``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from dpbench.core.errors import UserError
from dpbench.core.images import ImageSpec
from dpbench.training.wide_resnet import STEM, BlockShape, wide_resnet_blocks

GROUPS = 16
CNN_SMALLEST_SIDE = 16


class StandardisedConvolution(nn.Conv2d):
    """A convolution with scaled weight standardisation and a gain (Qiao et al. 2019).

    The kernel of each output channel has mean 0 and, before the gain, variance 1 / fan-in, as in
    ``WSConv2D`` of the code of De et al. 2022. It keeps the size but for the stride.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        """Draw the initial weights."""
        super().__init__(inputs, outputs, kernel, stride, padding=kernel // 2)
        self.gain = nn.Parameter(torch.ones(outputs, 1, 1, 1))
        nn.init.kaiming_normal_(self.weight, nonlinearity="linear")
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Convolve with the standardised kernel."""
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), correction=0, keepdim=True)
        fan_in = self.weight[0].numel()
        kernel = (self.weight - mean) * self.gain * (variance * fan_in).clamp(min=1e-4).rsqrt()
        return functional.conv2d(input, kernel, self.bias, self.stride, self.padding)


def _activated(channels: int) -> list[nn.Module]:
    return [nn.ReLU(), nn.GroupNorm(GROUPS, channels)]


class StandardisedBlock(nn.Module):
    """Twice ReLU, group normalisation and convolution, beside a skip connection."""

    def __init__(self, shape: BlockShape) -> None:
        """Draw the initial weights; the first block of a group has a convolution in its skip."""
        super().__init__()
        inputs, outputs, stride, first = shape
        self.residual = nn.Sequential(
            *_activated(inputs),
            StandardisedConvolution(inputs, outputs, 3, stride),
            *_activated(outputs),
            StandardisedConvolution(outputs, outputs, 3),
        )
        self.skip = (
            nn.Sequential(*_activated(inputs), StandardisedConvolution(inputs, outputs, 1, stride))
            if first
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inputs, H, W)`` to ``(B, outputs, ceil(H / stride), ceil(W / stride))``."""
        result: Tensor = self.residual(x) + self.skip(x)
        return result


def wide_resnet(depth: int, width: int) -> Callable[[ImageSpec, int], nn.Module]:
    """WRN-depth-width with group normalisation and weight standardisation, as De et al. 2022.

    Layers and their order are those of ``WideResNet`` in that paper's code.
    """

    def build(spec: ImageSpec, classes: int) -> nn.Module:
        shapes = wide_resnet_blocks(depth, width)
        channels = shapes[-1].outputs
        return nn.Sequential(
            StandardisedConvolution(spec.channels, STEM, 3),
            *(StandardisedBlock(shape) for shape in shapes),
            *_activated(channels),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, classes),
        )

    return build


def tanh_cnn(spec: ImageSpec, classes: int) -> nn.Module:
    """Papernot et al. 2021 (arXiv 2007.14191), table 1: the usual first network of DP-SGD.

    Raises:
        UserError: The images are smaller than ``CNN_SMALLEST_SIDE``.
    """
    if min(spec.height, spec.width) < CNN_SMALLEST_SIDE:
        raise UserError(
            f"the cnn needs images of at least {CNN_SMALLEST_SIDE} pixels a side: "
            "--set network=wrn-16-4"
        )
    # each side after a convolution of stride 2, a pooling of stride 1, and both again
    height, width = (((side - 4) // 2 - 4) // 2 for side in (spec.height, spec.width))
    return nn.Sequential(
        nn.Conv2d(spec.channels, 16, 8, stride=2, padding=2),
        nn.Tanh(),
        nn.MaxPool2d(2, stride=1),
        nn.Conv2d(16, 32, 4, stride=2),
        nn.Tanh(),
        nn.MaxPool2d(2, stride=1),
        nn.Flatten(),
        nn.Linear(32 * height * width, 32),
        nn.Tanh(),
        nn.Linear(32, classes),
    )


class InBfloat16(nn.Module):
    """A model of images whose forward pass computes in bfloat16 and whose output is float32."""

    def __init__(self, model: nn.Module) -> None:
        """Wrap a model."""
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Apply the model under autocast."""
        with torch.autocast(images.device.type, torch.bfloat16):
            result: Tensor = self.model(images)
        return result.float()


NETWORKS: dict[str, Callable[[ImageSpec, int], nn.Module]] = {
    "wrn-16-4": wide_resnet(16, 4),
    "wrn-40-4": wide_resnet(40, 4),
    "cnn": tanh_cnn,
}
