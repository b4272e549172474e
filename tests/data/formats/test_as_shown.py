"""What PNG and JPEG files hold beside their pixels."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from dpbench.core.errors import UserError
from dpbench.core.progress import Silent
from dpbench.data.catalog import DIGITS
from dpbench.data.formats import folders
from dpbench.data.load import load
from tests.support.datasets import encoded, noise, put

TALL = np.repeat(np.arange(8, dtype=np.uint8)[:, None] * 30, 16, 1)  # 8 high, 16 wide
COLOUR = noise(0, 8, 16, 3)


def with_orientation(pixels: np.ndarray, orientation: int, format: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100} if format == "JPEG" else {}
    return encoded(pixels, format, exif=exif, **options)


def write(folder: Path, content: bytes) -> Path:
    for number in range(10):
        put(folder / "ab"[number % 2] / f"{number}.png", content)
    return folder


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_viewers_turn_them(
    orientation: int, format: str, tmp_path: Path
) -> None:
    content = with_orientation(TALL, orientation, format)
    loaded = load(f"imagefolder:{write(tmp_path / 'turned', content)}", None, Silent())
    shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    assert loaded.info.shape == (1, *shown.shape)
    assert np.array_equal(loaded.splits.train.pixels[0, 0].numpy(), shown)


def chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def with_chunk(kind: bytes, content: bytes, pixels: np.ndarray = COLOUR) -> bytes:
    """A PNG file with a chunk between its header and its pixels."""
    plain = encoded(pixels)
    return plain[:33] + chunk(kind, content) + plain[33:]


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# red and green exchanged
EXCHANGED = SRGB.replace(b"rXYZ", b"tXYZ").replace(b"gXYZ", b"rXYZ").replace(b"tXYZ", b"gXYZ")


def two_frames() -> bytes:
    content = io.BytesIO()
    first, second = Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)
    first.save(content, "PNG", save_all=True, append_images=[second])
    return content.getvalue()


def two_photographs() -> bytes:
    content = io.BytesIO()
    Image.fromarray(COLOUR).save(
        content, "MPO", save_all=True, append_images=[Image.fromarray(COLOUR)]
    )
    return content.getvalue()


def sixteen_bits() -> bytes:
    """An RGB image of 16 bits a channel, of which Pillow keeps 8."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in COLOUR.astype(np.uint16) * 257)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 8, 16, 2, 0, 0, 0))
    end = chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + end


WIDE_GAMUT = struct.pack(">8I", 31270, 32900, 73470, 26530, 11520, 82640, 15660, 1770)
SRGB_GAMUT = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
REFUSED = {
    "transparency": (encoded(TALL, transparency=30), "transparency"),
    "transparent colour": (encoded(COLOUR, transparency=(1, 2, 3)), "transparency"),
    "linear gamma": (with_chunk(b"gAMA", struct.pack(">I", 100_000)), "intensities of gamma 1"),
    "wide gamut": (with_chunk(b"cHRM", WIDE_GAMUT), "primary colours of its own"),
    "other profile": (encoded(COLOUR, icc_profile=EXCHANGED), "colours of the profile '"),
    "no profile": (encoded(COLOUR, icc_profile=b"none"), "a colour profile that cannot be read"),
    "frames": (two_frames(), "several images"),
    "photographs": (two_photographs(), "several images"),
    "16 bits": (sixteen_bits(), "16 bits a channel"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_what_would_be_dropped_is_refused_by_name(
    content: bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"a/0.png holds {message}") as error:
        load(f"imagefolder:{write(tmp_path / 'set', content)}", None, Silent())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        encoded(COLOUR, icc_profile=SRGB),
        with_chunk(b"gAMA", struct.pack(">I", 45_455)),
        with_chunk(b"cHRM", SRGB_GAMUT),
        with_chunk(b"sRGB", b"\0"),
        with_chunk(b"tEXt", b"Comment\0a picture"),
    ],
    ids=["profile", "gamma", "primaries", "intent", "text"],
)
def test_what_changes_nothing_passes(content: bytes, tmp_path: Path) -> None:
    loaded = load(f"imagefolder:{write(tmp_path / 'set', content)}", None, Silent())
    assert np.array_equal(loaded.splits.train.pixels[0].numpy(), COLOUR.transpose(2, 0, 1))


def test_samples_are_read_in_the_same_way(tmp_path: Path) -> None:
    square = noise(0, 16, 16)
    put(tmp_path / "turned" / "3" / "0.png", with_orientation(square, 6, "PNG"))
    found = folders.samples(tmp_path / "turned", DIGITS, 5, Silent()).pixels[0, 0].numpy()
    assert np.array_equal(found, np.rot90(square, -1))
    put(tmp_path / "clear" / "3" / "0.png", encoded(square, transparency=200))
    with pytest.raises(UserError, match="holds transparency"):
        folders.samples(tmp_path / "clear", DIGITS, 5, Silent())
