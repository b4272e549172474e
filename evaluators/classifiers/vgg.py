"""VGG16 for small images."""

from __future__ import annotations

from torch import nn

from dpbench.core.images import ImageSpec

VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg16(spec: ImageSpec, classes: int) -> nn.Module:
    """Return VGG16 (Simonyan and Zisserman 2014, configuration D) for images of any size.

    As is usual on CIFAR-10, it has batch normalisation, global pooling and one linear layer.
    """
    layers: list[nn.Module] = []
    channels = spec.channels
    for stage in VGG16:
        for outputs in stage:
            layers += _normalised(nn.Conv2d(channels, outputs, 3, padding=1, bias=False))
            channels = outputs
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
    pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, *pool, nn.Linear(channels, classes))


def _normalised(convolution: nn.Conv2d) -> list[nn.Module]:
    return [convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU()]
