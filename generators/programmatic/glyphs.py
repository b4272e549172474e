"""Glyphs: digits and letters in many fonts, for private images of digits or of writing."""

from __future__ import annotations

import functools
import string
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from dpbench.core.images import ImageSpec

from ._affine import random_affine

GLYPHS = string.digits + string.ascii_uppercase + string.ascii_lowercase
# Fonts for text that matplotlib ships; its others are for mathematics and lack some of GLYPHS.
FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique"),
    *("DejaVuSansMono-BoldOblique", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic"),
    *("DejaVuSerif-BoldItalic", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic"),
    *("STIXGeneralBolIta", "cmr10", "cmb10", "cmss10", "cmtt10"),
)


@dataclass(frozen=True)
class Glyphs:
    """Bright printed characters on black: label k is the character ``GLYPHS[k]``, in any font.

    Digits stand for labels 0 to 9, capitals for 10 to 35, small letters for 36 to 61, and then
    again from 0. An image has a font drawn from ``FONTS``, a random affine map (see
    ``random_affine``; up to 0.25 radians and a shear of 0.3) and, for each channel, a brightness
    U(0.3, 1). Fonts are public, and no handwriting goes in. Characters that are alike in print, as
    0 and O are, stay alike.
    """

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "digits and letters in the fonts of matplotlib, one for each class"
    labelled: ClassVar[bool] = True

    def draw(self, spec: ImageSpec, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Draw one image for each label, as ``Source``."""
        count = len(labels)
        side = 2 * min(spec.height, spec.width)
        fonts = torch.randint(len(FONTS), (count,), generator=rng).tolist()
        templates = torch.stack(
            [
                template(GLYPHS[label % len(GLYPHS)], FONTS[font], side)
                for label, font in zip(labels.tolist(), fonts, strict=True)
            ]
        )
        # drawn at twice the resolution and averaged down, so that thin strokes do not break up
        double = ImageSpec(1, 2 * spec.height, 2 * spec.width)
        x, y = random_affine(count, double, rng, angle=0.25, shear=0.3)
        places = torch.cat((x, y), dim=1).permute(0, 2, 3, 1)
        ink = F.avg_pool2d(F.grid_sample(templates.float(), places, align_corners=False), 2)
        brightness = 0.3 + 0.7 * torch.rand(count, spec.channels, 1, 1, generator=rng)
        return (brightness * ink).round().to(torch.uint8)


@functools.cache
def template(glyph: str, font: str, side: int) -> Tensor:
    """A character in the middle of a square, ``(1, side, side)``, uint8: 255 is ink."""
    file = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{font}.ttf")
    # the basic layout does not depend on what Pillow was built with
    face = ImageFont.truetype(file, 0.9 * side, layout_engine=ImageFont.Layout.BASIC)
    left, _, right, _ = face.getbbox(glyph)
    # digits are about two thirds of the canvas high; M and W would be too wide in that size
    face = face.font_variant(size=0.9 * side * min(1, 0.9 * side / (right - left)))
    left, top, right, bottom = face.getbbox(glyph)
    picture = Image.new("L", (side, side))
    corner = ((side - left - right) / 2, (side - top - bottom) / 2)
    ImageDraw.Draw(picture).text(corner, glyph, fill=255, font=face)
    return torch.from_numpy(np.array(picture))[None]


SOURCE = Glyphs
