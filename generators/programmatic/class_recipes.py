"""Class recipes: images with meaningful labels, made from nobody's data."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from dpbench.core.images import ImageSpec
from dpbench.core.streams import Streams

from ._affine import random_affine, uniform

TEMPLATE = 96
PATTERNS = ("plain", "stripes", "checks", "mottle")
# The multiples mod 1 of (1 / g, 1 / g^2), g^3 = g + 1, fill the unit square evenly (the sequence
# R2 of Roberts 2018), so that no two classes have nearly the same width and height.
PLASTIC = 1.32471795724474602596


@dataclass(frozen=True)
class ClassRecipes:
    """Bright random objects on black: each class has a silhouette, a shading and a texture.

    A class owns a smooth random silhouette (a thresholded smooth random field, often mirror
    symmetric, sometimes in parts) with its width, height and place on the canvas, an inner
    shading, a texture from ``PATTERNS`` with its direction and frequency, and a tint. An image of
    the class gets a random rotation, scale, aspect, shear, shift and smooth warp of these, and
    random brightness, light, and texture phase and contrast.

    Recipes are functions of ``recipe_seed`` and the class number alone, so a class is the same in
    every run. The construction is our own, not a published one: labels that mean something are
    meant to keep class conditioning alive through pre-training.

    Attributes:
        recipe_seed: Seed of the recipes.
    """

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "random objects on black, each class with its outline and texture"
    labelled: ClassVar[bool] = True

    recipe_seed: int = 0

    def draw(self, spec: ImageSpec, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Draw one image for each label, as ``Source``."""
        recipes = [_recipe(self.recipe_seed, label) for label in labels.tolist()]
        x, y = random_affine(len(recipes), spec, rng)
        x = x + 0.05 * _smooth(len(recipes), 4, spec, rng)
        y = y + 0.05 * _smooth(len(recipes), 4, spec, rng)
        templates = torch.stack([recipe.template for recipe in recipes])
        places = torch.cat((x, y), dim=1).permute(0, 2, 3, 1)
        found = F.grid_sample(templates, places, padding_mode="border", align_corners=False)
        depth, shade = found[:, :1], found[:, 1:]
        # depth is in half canvases: the edge ramps from 0 to 1 over one pixel
        alpha = (depth * min(spec.height, spec.width) / 2 + 0.5).clamp(0, 1)

        light = 1 + 0.2 * shade + 0.12 * _smooth(len(recipes), 3, spec, rng)
        light = light + uniform(0.1, 0.4, len(recipes), rng) * _texture(x, y, recipes, spec, rng)
        bright = uniform(0.35, 0.9, len(recipes), rng) * light
        if spec.channels > 1:
            tint = torch.stack([recipe.tint for recipe in recipes])
            bright = bright * (tint + 0.15 * torch.randn(tint.shape, generator=rng))
        pixels: Tensor = (255 * alpha * bright.clamp(0.05, 1)).round()
        return pixels.to(torch.uint8)


@dataclass(frozen=True)
class _Recipe:
    """Properties that the images of a class share.

    Attributes:
        template: ``(2, TEMPLATE, TEMPLATE)``: the signed distance to the silhouette's edge in
            units of half the canvas, positive inside, and the inner shading.
        pattern: One of ``PATTERNS``.
        angle: Direction of the pattern, radians.
        cycles: Periods of the pattern on the canvas.
        tint: ``(3, 1, 1)``, in [0, 1].
    """

    template: Tensor
    pattern: str
    angle: float
    cycles: float
    tint: Tensor


@functools.cache
def _recipe(seed: int, label: int) -> _Recipe:
    rng = Streams(seed).public("public-data", "class-recipe", label)
    width = 0.5 + 0.45 * ((label + 0.5) / PLASTIC % 1)
    height = 0.5 + 0.45 * ((label + 0.5) / PLASTIC**2 % 1)
    angle, cycles, place = torch.rand(3, generator=rng).tolist()
    mask = _silhouette(width, height, 2 * place - 1, rng)
    distance = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    shade = _enlarge(torch.randn(1, 1, 4, 4, generator=rng), TEMPLATE, TEMPLATE)[0]
    return _Recipe(
        template=torch.cat((torch.from_numpy(distance).float()[None] / (TEMPLATE / 2), shade)),
        pattern=PATTERNS[label % len(PATTERNS)],
        angle=math.pi * angle,
        cycles=3 + 2 * cycles,
        tint=0.4 + 0.6 * torch.rand(3, 1, 1, generator=rng),
    )


def _silhouette(width: float, height: float, place: float, rng: torch.Generator) -> Tensor:
    """Draw a smooth random shape whose bounding box has a given size.

    Args:
        width: Width of the bounding box, in canvases.
        height: Its height, in canvases.
        place: Vertical place of the box, from -1 (top) to 1 (bottom).
        rng: Source of randomness.

    Returns:
        ``(TEMPLATE, TEMPLATE)``, bool.
    """
    field = _enlarge(torch.randn(1, 1, 6, 6, generator=rng), TEMPLATE, TEMPLATE)[0, 0]
    symmetric, solidity = torch.rand(2, generator=rng).tolist()
    if symmetric < 0.7:
        field = (field + field.flip(1)) / math.sqrt(2)
    across = torch.linspace(-1, 1, TEMPLATE)
    # falls off towards the edges, so that the shape is round rather than cut
    field = field - 3 * (across[:, None] ** 4 + across**4)
    field = field - field.quantile(0.6 - 0.25 * solidity)
    field = torch.where(_large_parts(field > 0), field, field.clamp(max=0))
    rows, columns = ((field > 0).any(dim).nonzero() for dim in (1, 0))
    field = field[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    rows_of_box, columns_of_box = round(height * TEMPLATE), round(width * TEMPLATE)
    mask = torch.zeros(TEMPLATE, TEMPLATE, dtype=torch.bool)
    top = round((TEMPLATE - rows_of_box) * (0.5 + 0.3 * place))
    left = (TEMPLATE - columns_of_box) // 2
    box = _enlarge(field[None, None], rows_of_box, columns_of_box)[0, 0] > 0
    mask[top : top + rows_of_box, left : left + columns_of_box] = box
    return mask


def _large_parts(mask: Tensor) -> Tensor:
    """Return the mask without the parts smaller than a twentieth of it."""
    parts, _ = ndimage.label(mask)
    part = torch.from_numpy(parts).long()
    sizes = part.flatten().bincount()
    return mask & (sizes >= mask.sum() / 20)[part]


def _texture(
    x: Tensor, y: Tensor, recipes: list[_Recipe], spec: ImageSpec, rng: torch.Generator
) -> Tensor:
    """Return the pattern of each image's class at x and y, ``(N, 1, H, W)``, in [-1, 1]."""
    count = len(recipes)
    angle = torch.tensor([recipe.angle for recipe in recipes]).view(-1, 1, 1, 1)
    cycles = torch.tensor([recipe.cycles for recipe in recipes]).view(-1, 1, 1, 1)
    frequency = math.pi * cycles * uniform(0.85, 1.15, count, rng)
    phases = [uniform(0, 2 * math.pi, count, rng) for _ in range(2)]
    along = (frequency * (x * angle.cos() + y * angle.sin()) + phases[0]).sin()
    across = (frequency * (y * angle.cos() - x * angle.sin()) + phases[1]).sin()
    mottle = _smooth(count, min(spec.height, spec.width) // 2, spec, rng).clamp(-1, 1)
    patterns = torch.stack((torch.zeros_like(x), along, along * across, mottle))
    return patterns[[PATTERNS.index(recipe.pattern) for recipe in recipes], torch.arange(count)]


def _smooth(count: int, knots: int, spec: ImageSpec, rng: torch.Generator) -> Tensor:
    """Draw smooth random fields of variance about 1 that vary over ``1 / knots`` of the canvas."""
    knotted = torch.randn(count, 1, knots, knots, generator=rng)
    return _enlarge(knotted, spec.height, spec.width)


def _enlarge(field: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(field, (height, width), mode="bicubic", align_corners=True)


SOURCE = ClassRecipes
