"""Dead leaves: overlapping random shapes that hide one another as leaves on the ground do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from dpbench.core.images import ImageSpec

LEAVES = 5000
RADII = 200
SHAPES = ("circle", "square", "oriented square", "rectangle", "triangle", "quadrilateral")
# Pairs of a pixel and a leaf tested at once: many, to amortise the overhead of a call.
PAIRS = 2**20


@dataclass(frozen=True)
class DeadLeaves:
    """The "mixed" dead leaves of Baradad et al. 2021, "Learning to see by looking at noise".

    Up to 5000 leaves cover a black canvas. Each has a uniform centre on the canvas, a random radius
    (``draw_radii``), a uniform colour in [0, 255] per channel (grey where there is one channel),
    and with equal odds one of ``SHAPES``: the circle of that radius or a figure inscribed in it,
    with random corners where the name leaves them open. These are the laws of the authors' program
    (``dead_leaves`` with sigma = 3), but for two things: it rounds centres, radii and corners to
    whole pixels, where here a leaf covers the pixels whose centres lie in it; and it paints back to
    front until all is covered, where here painting has gone on for ever.

    Attributes:
        r_min: Smallest radius, in units of the longer side of the image; in (0, 1).
        oversample: Render at this many times the resolution and average down.
    """

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "overlapping random shapes (Baradad et al. 2021)"
    labelled: ClassVar[bool] = False

    r_min: float = 0.03
    oversample: int = 1

    def draw_radii(self, count: int, rng: torch.Generator) -> Tensor:
        """Draw radii from a grid of 200 in [r_min, 1] with pmf ~ r^-3 - 1.

        Args:
            count: Number of radii, N.
            rng: Source of randomness.

        Returns:
            ``(N,)``, float32, in units of the longer side of the image.
        """
        grid = torch.linspace(self.r_min, 1, RADII)
        weights = grid**-3 - 1
        return grid[weights.multinomial(count, replacement=True, generator=rng)]

    def draw(self, spec: ImageSpec, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Draw one image for each label, as ``Source``."""
        count, k = len(labels), self.oversample
        height, width = spec.height * k, spec.width * k
        canvas = torch.zeros(count * height * width, spec.channels, dtype=torch.uint8)
        uncovered = torch.arange(len(canvas))
        laid = 0
        # From front to back: the first leaf to reach a pixel is the one that shows. This gives
        # exactly the law of painting infinitely many leaves back to front (Kendall and Thonnes
        # 1999, "Perfect simulation in stochastic geometry"), and may stop once all is covered.
        while len(uncovered) and laid < LEAVES:
            size = (count, min(max(PAIRS // len(uncovered), 4), 256, LEAVES - laid))
            leaves = _Leaves(
                shape=torch.randint(len(SHAPES), size, generator=rng),
                radius=self.draw_radii(math.prod(size), rng).view(size) * max(height, width),
                y=torch.rand(size, generator=rng) * height,
                x=torch.rand(size, generator=rng) * width,
                uniforms=torch.rand(*size, 4, generator=rng),
            )
            colour = torch.randint(256, (*size, spec.channels), generator=rng, dtype=torch.uint8)
            front = _front(leaves, uncovered, height, width)
            covered = front < size[1]
            shown = uncovered[covered]
            canvas[shown] = colour[shown // (height * width), front[covered]]
            uncovered = uncovered[~covered]
            laid += size[1]
        pixels = canvas.view(count, height, width, spec.channels).permute(0, 3, 1, 2)
        if k > 1:
            pixels = F.avg_pool2d(pixels.float(), k).round().to(torch.uint8)
        return pixels.contiguous()


class _Leaves(NamedTuple):
    """L leaves for each of N images, the one in front first.

    Attributes:
        shape: ``(N, L)``, int64: index into ``SHAPES``.
        radius: ``(N, L)``, pixels.
        y: ``(N, L)``, the centre's, pixels.
        x: ``(N, L)``, the centre's, pixels.
        uniforms: ``(N, L, 4)``, in [0, 1): source of the corners.
    """

    shape: Tensor
    radius: Tensor
    y: Tensor
    x: Tensor
    uniforms: Tensor


def _front(leaves: _Leaves, pixels: Tensor, height: int, width: int) -> Tensor:
    """Find the first leaf that covers each pixel.

    Args:
        leaves: L leaves for each image.
        pixels: ``(P,)``, int64: indices into ``(N, height, width)``, flat.
        height: Height of the images.
        width: Width of the images.

    Returns:
        ``(P,)``, int64: a leaf of the pixel's image, or L where none covers it.
    """
    count = leaves.shape.shape[1]
    line = pixels // width
    image = line // height
    column = pixels - line * width
    rows, columns = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    # few pairs pass the test by circle, which is cheap; only those get the test by shape
    reach = leaves.radius[:, None] ** 2 - (rows[:, None] - leaves.y[:, None]) ** 2
    away = (columns[:, None] - leaves.x[:, None]) ** 2
    reach = reach.view(-1, count).index_select(0, line)
    away = away.view(-1, count).index_select(0, image * width + column)
    hits = (away < reach).view(-1).nonzero()[:, 0]
    pixel, leaf = hits // count, hits % count
    pair = image[pixel] * count + leaf
    radius = leaves.radius.view(-1)[pair]
    y = (rows[line[pixel] % height] - leaves.y.view(-1)[pair]) / radius
    x = (columns[column[pixel]] - leaves.x.view(-1)[pair]) / radius
    inside = inside_leaf(x, y, leaves.shape.view(-1)[pair], leaves.uniforms.view(-1, 4)[pair])
    first = torch.full((len(pixels),), count)
    return first.scatter_reduce(0, pixel[inside], leaf[inside], "amin")


def inside_leaf(x: Tensor, y: Tensor, shape: Tensor, uniforms: Tensor) -> Tensor:
    """Which points of the unit disc lie in their leaf.

    Args:
        x: ``(N,)``.
        y: ``(N,)``.
        shape: ``(N,)``, int64: index into ``SHAPES``.
        uniforms: ``(N, 4)``, in [0, 1): what the corners are made from.

    Returns:
        ``(N,)``, bool.
    """
    first = math.pi / 2 * uniforms[:, 0]
    turn = torch.where(shape == SHAPES.index("oriented square"), first, 0)
    corner = torch.where(shape == SHAPES.index("rectangle"), first, math.pi / 4)
    inside = (x * turn.cos() + y * turn.sin()).abs() <= corner.cos()
    inside &= (y * turn.cos() - x * turn.sin()).abs() <= corner.sin()
    inside |= shape == SHAPES.index("circle")

    quadrilateral = shape == SHAPES.index("quadrilateral")
    polygon = ((shape == SHAPES.index("triangle")) | quadrilateral).nonzero()[:, 0]
    angles = 2 * math.pi * uniforms[polygon]
    # a triangle is a quadrilateral with two corners in one place
    angles[:, 3] = torch.where(quadrilateral[polygon], angles[:, 3], angles[:, 2])
    angles = angles.sort(dim=1).values
    from_x, from_y = angles.cos(), angles.sin()
    edge_x, edge_y = from_x.roll(-1, 1) - from_x, from_y.roll(-1, 1) - from_y
    # corners run counter-clockwise, so the inside is on the left of every edge
    left = edge_x * (y[polygon, None] - from_y) >= edge_y * (x[polygon, None] - from_x)
    inside[polygon] = left.all(dim=1)
    return inside


SOURCE = DeadLeaves
