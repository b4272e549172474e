"""What a PNG or JPEG file holds beside its pixels: applied, or refused by name.

Viewers turn an image as its EXIF orientation says, hide what is transparent, and convert colours of
another profile. Pixels alone would be other images than the ones that the user sees.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps

from dpbench.core.errors import UserError

ORIENTATION = 0x0112  # tag of EXIF
TURNED = (5, 6, 7, 8)  # orientations that exchange width and height
PNG_DEPTH = 24  # place of the bit depth in a PNG file
LARGEST_COLOUR_ERROR = 2  # of 255; profiles of sRGB by different makers differ by no more
SRGB_GAMMA = 1 / 2.2
# white, red, green and blue points of sRGB (IEC 61966-2-1)
SRGB_POINTS = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)


def size_as_shown(image: Image.Image) -> tuple[int, int]:
    """Width and height of an opened image, as viewers show it."""
    width, height = image.size
    return (height, width) if image.getexif().get(ORIENTATION) in TURNED else (width, height)


def as_shown(image: Image.Image, content: bytes, name: str) -> Image.Image:
    """An image of mode L or RGB as viewers show it.

    Args:
        image: The opened image.
        content: The bytes of its file.
        name: Path of the file, for messages.

    Returns:
        The image, turned as its EXIF orientation says.

    Raises:
        UserError: The file holds several images, more than 8 bits a channel, transparency, or
            colours that are not those of sRGB.
    """
    image.load()  # some of what is asked for stands behind the pixels
    if odd := _odd(image, content):
        raise UserError(f"{name} holds {odd}")
    return ImageOps.exif_transpose(image)


def _odd(image: Image.Image, content: bytes) -> str:
    """What can be neither applied nor dropped, with what to do about it; empty if nothing."""
    info: dict[Any, Any] = image.info
    if image.format not in ("PNG", "JPEG") or getattr(image, "n_frames", 1) > 1:
        return "several images: keep one"
    if image.format == "PNG" and content[PNG_DEPTH] > 8:
        return f"{content[PNG_DEPTH]} bits a channel: convert all images to 8"
    if "transparency" in info:
        return "transparency (tRNS): lay all images on a background"
    if "icc_profile" in info:
        return _odd_profile(image, info["icc_profile"])
    if "srgb" in info:
        return ""
    if abs(info.get("gamma", SRGB_GAMMA) - SRGB_GAMMA) > 0.01:
        return f"intensities of gamma {info['gamma']:g} (gAMA): convert all images to sRGB"
    points = info.get("chromaticity", SRGB_POINTS)
    if image.mode == "RGB" and max(abs(np.subtract(points, SRGB_POINTS))) > 0.01:
        return "primary colours of its own (cHRM): convert all images to sRGB"
    return ""


def _odd_profile(image: Image.Image, profile: bytes) -> str:
    """As ``_odd``, for a colour profile: it matters only if it changes what is seen."""
    try:
        found = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        wanted = ImageCms.createProfile("sRGB")
        shown = ImageCms.profileToProfile(image, found, wanted, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        return f"a colour profile that cannot be read ({reason}): convert all images to sRGB"
    assert shown is not None  # it is for images that are changed in place
    plain = np.asarray(image.convert("RGB"), np.int16)
    if abs(np.asarray(shown, np.int16) - plain).max(initial=0) > LARGEST_COLOUR_ERROR:
        kind = " ".join(ImageCms.getProfileName(found).split())
        return f"colours of the profile {kind!a}: convert all images to sRGB"
    return ""
