"""Deep networks of the papers' evaluations, for small images."""

from __future__ import annotations

from torch import Tensor, nn

from dpbench.types import ImageSpec

VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg16(spec: ImageSpec, classes: int) -> nn.Module:
    """VGG16 (Simonyan and Zisserman 2014, configuration D) with one linear layer behind it.

    With batch normalisation, and pooled to one place before the linear layer, as is usual on
    CIFAR-10. Images of any size.
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


def wide_resnet28_8(spec: ImageSpec, classes: int) -> nn.Module:
    """WRN-28-8 (Zagoruyko and Komodakis 2016): 3 groups of 4 blocks, of 128, 256, 512 channels."""
    layers: list[nn.Module] = [nn.Conv2d(spec.channels, 16, 3, padding=1, bias=False)]
    channels = 16
    for group in range(3):
        outputs = 16 * 2**group * 8
        for block in range(4):
            layers.append(_Block(channels, outputs, stride=2 if group and not block else 1))
            channels = outputs
    end = (nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, *end, nn.Linear(channels, classes))


class _Block(nn.Module):
    """Two convolutions, each behind normalisation and ReLU, and a way around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Make the layers; the way around is a 1 x 1 convolution where the shape changes."""
        super().__init__()
        self.before = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU())
        self.residual = nn.Sequential(
            *_normalised(nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        )
        self.skip = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inputs, H, W)`` to ``(B, outputs, ceil(H / stride), ceil(W / stride))``."""
        activated = self.before(x)
        result: Tensor = self.residual(activated)
        return result + (x if self.skip is None else self.skip(activated))


def _normalised(convolution: nn.Conv2d) -> list[nn.Module]:
    return [convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU()]
