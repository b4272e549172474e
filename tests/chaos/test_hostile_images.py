"""Hostile folders of images: as samples, and as a data set."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.support.chaos import Place
from tests.support.chaos_hostile import (
    FAMILY,
    Arguments,
    Prepare,
    bound,
    cases,
    chunk,
    evaluate,
    harmless,
    kind_of,
    load,
    png,
)
from tests.support.chaos_runs import Lab
from tests.support.datasets import encoded, noise, put

pytestmark = [pytest.mark.chaos(FAMILY)]

PIXELS = noise(1, 16, 16)
GOOD = encoded(PIXELS)
Spoil = Callable[[Path], object]


def samples(folder: Path) -> None:
    for index in range(12):
        put(folder / str(index % 2) / f"{index}.png", encoded(noise(index, 16, 16)))


def spoiled(spoil: Spoil, name: str, dataset: bool) -> Prepare:
    """A folder in which one image is another file."""

    def prepare(place: Place) -> Arguments:
        folder = place.work / "images"
        samples(folder)
        file = folder / "0" / name
        file.unlink(missing_ok=True)
        spoil(file)
        return load("imagefolder:images") if dataset else evaluate("images")

    return prepare


def content(of: bytes) -> Spoil:
    return lambda file: file.write_bytes(of)


def link(to: str) -> Spoil:
    return lambda file: file.symlink_to(to)


def texts(size: int) -> bytes:
    """Chunks of text that unpack to megabytes."""
    return chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(size))) * 4


def tiff(orientation: int) -> bytes:
    entry = b"\x12\x01\x03\0\1\0\0\0" + bytes((orientation, 0, 0, 0))
    return chunk(b"eXIf", b"II*\0\x08\0\0\0\1\0" + entry + bytes(4))


def spoilers() -> dict[str, Spoil]:
    profile = b"x\0\0" + zlib.compress(bytes(1 << 26))
    transparent = chunk(b"tRNS", b"\0\0")
    jpeg = encoded(PIXELS, "JPEG")
    wide = bytearray(jpeg)
    where = wide.find(b"\xff\xc0")
    wide[where + 5 : where + 9] = b"\xff\xff\xff\xff"
    return {
        "a fifo": os.mkfifo,
        "a socket": bound,
        "a folder": Path.mkdir,
        "a link to zeros": link("/dev/zero"),
        "a link to chance": link("/dev/urandom"),
        "a link to the terminal": link("/dev/tty"),
        "a link to a file": link("/etc/passwd"),
        "a link to itself": lambda file: file.symlink_to(file),
        "a link to nothing": link("nothing"),
        "a link to the memory": link("/proc/self/mem"),
        "empty": content(b""),
        "garbage": content(noise(2, 500).tobytes()),
        "truncated": content(GOOD[:100]),
        "without its end": content(GOOD[:-12]),
        "more after its end": content(GOOD + bytes(1000)),
        "a bad sum": content(GOOD[:60] + b"\xff" + GOOD[61:]),
        "huge by its header": content(png(16, 16).replace(b"\0\0\0\x10" * 2, b"\0\1\0\0" * 2, 1)),
        "huge": content(png(13_000, 13_000)),
        "no pixels": content(png(0, 0)),
        "texts that unpack": content(png(16, 16, texts(1 << 26))),
        "a profile that unpacks": content(png(16, 16, chunk(b"iCCP", profile))),
        "many chunks": content(png(16, 16, chunk(b"tEXt", b"a\0b") * 100_000)),
        "turned": content(png(16, 16, tiff(6))),
        "a bad orientation": content(png(16, 16, tiff(200))),
        "bad exif": content(png(16, 16, chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"))),
        "transparent": content(png(16, 16, transparent)),
        "a palette": content(png(16, 16, chunk(b"PLTE", bytes(768)), colour=3)),
        "16 bits": content(png(16, 16, bits=16)),
        "1 bit": content(png(16, 16, bits=1)),
        "RGBA": content(png(16, 16, colour=6)),
        "grey and alpha": content(png(16, 16, colour=4)),
        "animated": content(png(16, 16, chunk(b"acTL", b"\xff\xff\xff\xff" + bytes(4)))),
        "a JPEG as PNG": content(jpeg),
        "a truncated JPEG": content(jpeg[:200]),
        "a wide JPEG": content(bytes(wide)),
        "a CMYK JPEG": content(encoded_as("CMYK", "JPEG")),
        "a GIF": content(encoded_as("L", "GIF")),
        "a TIFF": content(encoded_as("L", "TIFF")),
        "PostScript": content(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n(x) run\n"),
        "SVG": content(b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>"),
    }


def encoded_as(mode: str, format: str) -> bytes:
    target = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(target, format)
    return target.getvalue()


def all_huge(place: Place) -> Arguments:
    """Every image is of 169 megapixels, so that their size is the set's."""
    big = png(13_000, 13_000)
    for index in range(12):
        put(place.work / "images" / str(index % 2) / f"{index}.png", big)
    return load("imagefolder:images")


NAMES = (
    *("line\nbreak", "\x1b[31mred\x1b[0m", "[red]x", ":one:", "=1+1", "@SUM(A1)", "-rf"),
    *("\u202egnp", "a" * 200, " ", "..x", "<script>", "a,b", '"', "con", "\u00fc", "%s%n", "\x07"),
)


def named(name: str, how: str) -> Prepare:
    """A class, a file or a whole data set of an odd name."""

    def prepare(place: Place) -> Arguments:
        folder = place.work / (name if how == "folder" else "images")
        samples(folder)
        if how == "file":
            (folder / "0" / "0.png").rename(folder / "0" / f"{name}.png")
            (folder / "0" / "2.png").write_bytes(b"so that names are listed")
        if how == "class":
            (folder / "0").rename(folder / name)
        if how == "samples":
            (folder / "0").rename(folder / name)
            return evaluate(folder.relative_to(place.work))
        options = () if how == "class" else ("--dry-run",)
        return load(f"imagefolder:{folder.relative_to(place.work)}", *options)

    return prepare


def no_text(place: Place) -> Arguments:
    samples(place.work / "images")
    (place.work / "images" / "0").rename(place.work / "images" / os.fsdecode(b"\xff\xfe"))
    return load("imagefolder:images")


def folders() -> dict[str, Prepare]:
    def around(place: Place) -> Arguments:
        samples(place.work / "images")
        (place.work / "images" / "0" / "loop.png").symlink_to("..")
        (place.work / "images" / "loop").symlink_to(".")
        return load("imagefolder:images", "--dry-run")

    def empty(place: Place) -> Arguments:
        (place.work / "images" / "0").mkdir(parents=True)
        return load("imagefolder:images", "--dry-run")

    def many(place: Place) -> Arguments:
        for index in range(3000):
            put(place.work / "images" / f"{index:05}" / "0.png", GOOD)
        return load("imagefolder:images", "--dry-run")

    return {
        "all huge": all_huge,
        "links around": around,
        "empty": empty,
        "many classes": many,
        "a name that is no text": no_text,
        "everything": lambda place: load("imagefolder:/", "--dry-run"),
        "the processes": lambda place: load("imagefolder:/proc", "--dry-run"),
        "the devices": lambda place: evaluate("/dev"),
    }


CASES: dict[str, Prepare] = folders()
for kind, spoil in spoilers().items():
    CASES[f"{kind} among samples"] = spoiled(spoil, "0.png", dataset=False)
    CASES[f"{kind} first in a set"] = spoiled(spoil, "0.png", dataset=True)
for odd in NAMES:
    for how in ("class", "file"):
        CASES[f"{how} {odd[:20]!r}"] = named(odd, how)


@pytest.mark.parametrize("prepare", cases(CASES))
def test_a_hostile_folder_does_no_harm(
    prepare: Prepare, place: Place, lab: Lab, record_property: Callable[[str, object], None]
) -> None:
    ended = harmless(lab.warm(place), prepare(place))
    record_property("detail", kind_of(ended))
