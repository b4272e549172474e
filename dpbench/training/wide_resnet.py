"""The shape of wide residual networks (Zagoruyko and Komodakis 2016, arXiv 1605.07146, table 1)."""

from __future__ import annotations

from typing import NamedTuple

STEM = 16  # channels of the first convolution


class BlockShape(NamedTuple):
    """What a residual block of a wide residual network takes and gives.

    Attributes:
        inputs: Channels.
        outputs: Channels.
        stride: 2 where the block halves the resolution, else 1.
        first: Whether the block is the first one of its group.
    """

    inputs: int
    outputs: int
    stride: int
    first: bool


def wide_resnet_blocks(depth: int, width: int) -> list[BlockShape]:
    """Shapes of the blocks of WRN-depth-width, in order, after a convolution to ``STEM`` channels.

    Args:
        depth: 6n + 4 for n blocks in each of the three groups.
        width: Factor of the channels 16, 32 and 64 of the groups.
    """
    blocks = []
    inputs = STEM
    for group in range(3):
        outputs = STEM * 2**group * width
        for block in range((depth - 4) // 6):
            stride = 2 if group and not block else 1
            blocks.append(BlockShape(inputs, outputs, stride, first=not block))
            inputs = outputs
    return blocks
