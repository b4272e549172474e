"""Public images by name: programs, data sets and folders of images.

Whoever names a source as public vouches for it: nothing that is learned from it is accounted for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 (its customary name)
from torch import Tensor

from dpbench.api.sources import NO_PUBLIC, PublicSource, Source
from dpbench.core.errors import RunFailed, UserError, unknown
from dpbench.core.images import Images, ImageSpec
from dpbench.core.progress import Progress
from dpbench.core.registry import entries, version_of
from dpbench.core.registry import load as load_entry
from dpbench.core.streams import Streams
from dpbench.data.catalog import CATALOG
from dpbench.data.formats.folders import PREFIX
from dpbench.data.load import Dataset, find_info, load
from dpbench.privacy.mechanisms import PrivateSetInfo
from dpbench.runs.public_overlap import check_apart

# Random numbers are drawn for whole chunks, so that the images of a chunk are vectorised and yet
# do not depend on how many images are asked for.
CHUNK = 64
CONVERTED_AT_ONCE = 4096
# Of red, green and blue in grey: ITU-R BT.601, as in Pillow.
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class _Source:
    """Implements ``dpbench.api.sources.PublicSource``."""

    name: str
    identity: str
    classes: int | None
    draw: Callable[[int, Progress, int | None], Images]

    def images(self, count: int, progress: Progress, classes: int | None = None) -> Images:
        """Implements ``dpbench.api.sources.PublicSource``."""
        return self.draw(count, progress, classes)


def check_public(name: str, private: str) -> None:
    """Check that a name stands for public images other than the private ones; raise if not.

    Args:
        name: Name of the public images, as they were asked for.
        private: Name of the private data set, as it was asked for.

    Raises:
        UserError: They cannot, or they are.
    """
    if name == NO_PUBLIC:
        return
    if name == private:
        raise UserError(
            f"{private} is the private data set, so it cannot be its own public source: "
            "--public takes other images, or none"
        )
    _check_known(name)


def _check_known(name: str) -> None:
    programs = entries("source")
    if name.startswith(PREFIX):
        find_info(name)  # a look at the folder
    elif name not in programs and name not in CATALOG:
        raise UserError(
            unknown("source", name, (*programs, *CATALOG, f"{PREFIX}PATH")) + " and `list datasets`"
        )


def open_public(
    name: str,
    info: PrivateSetInfo,
    private: Images | None,
    seed: int,
    data_root: Path | None,
    progress: Progress,
) -> PublicSource | None:
    """Public images, in the shape of the private ones.

    Args:
        name: Of a program, a data set or ``imagefolder:PATH``; ``none`` gives None.
        info: What is public about the private set.
        private: The private train images, with which public ones are compared as ``check_apart``
            does; None to compare with none.
        seed: Public seed of the run, which decides which images are drawn.
        data_root: Where to look for data first.
        progress: Receives progress updates of downloads.

    Raises:
        UserError: They cannot be had, or private images are among them.
    """
    if name == NO_PUBLIC:
        return None
    _check_known(name)
    if name in entries("source"):
        return _program(name, info, seed)
    dataset = load(name, data_root, progress)
    train = dataset.splits.train
    if private is not None:
        check_apart(name, _in_shape(dataset, info.spec, progress), private.pixels)

    def draw(count: int, progress: Progress, classes: int | None) -> Images:
        rng = Streams(seed).public("public-data", "order")
        chosen = torch.randperm(len(train), generator=rng)[:count]
        pixels = torch.empty(len(chosen), *info.spec.shape, dtype=torch.uint8)
        with progress.task(f"reading {dataset.info.name}", len(chosen), "images") as task:
            for start in range(0, len(chosen), CONVERTED_AT_ONCE):
                part = train.pixels[chosen[start : start + CONVERTED_AT_ONCE]]
                pixels[start : start + len(part)] = converted(part, info.spec)
                task.advance(len(part))
        return Images(pixels, train.labels[chosen])

    known_as = dataset.info.name  # of a folder, the last part of its path
    return _Source(known_as, _hash(dataset.content_hash), dataset.info.classes, draw)


def _in_shape(dataset: Dataset, spec: ImageSpec, progress: Progress) -> Iterator[Tensor]:
    """All train images of a public data set in the private images' shape, in parts."""
    pixels = dataset.splits.train.pixels
    label = f"compare {dataset.info.name} with the private images"
    with progress.task(label, len(pixels), "images") as task:
        for start in range(0, len(pixels), CONVERTED_AT_ONCE):
            part = converted(pixels[start : start + CONVERTED_AT_ONCE], spec)
            yield part
            task.advance(len(part))


def unread(name: str) -> PublicSource | None:
    """A source of that name for fits that leave public training out: it has no images to give."""

    def refuse(count: int, progress: Progress, classes: int | None) -> Images:
        raise RunFailed(f"{name} was asked for images where public training is left out")

    return None if name == NO_PUBLIC else _Source(name, _hash(name), None, refuse)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _program(name: str, info: PrivateSetInfo, seed: int) -> PublicSource:
    program: Source = load_entry("source", name)()

    def draw(count: int, progress: Progress, classes: int | None) -> Images:
        images_seed = Streams(seed).seed("public-data", "images")
        asked = classes or info.classes
        return programmatic_images(name, count, info.spec, asked, images_seed, progress)

    identity = _hash(f"{program!r} {version_of(entries('source')[name])}")
    return _Source(name, identity, info.classes if program.labelled else None, draw)


def programmatic_images(
    source: str, count: int, spec: ImageSpec, classes: int, seed: int, progress: Progress
) -> Images:
    """Draw labelled images from a program.

    Each image is a function of the source with its parameters, ``spec``, ``seed``, its label and
    its index: fewer images are a prefix of more.

    Args:
        source: Its name.
        count: Number of images, N.
        spec: The shape of one image.
        classes: Number of classes.
        seed: Public seed.
        progress: Told of images drawn.

    Returns:
        N images. Labels are ``index % classes`` where the source draws what its label says, and
        uniform random where it does not.

    Raises:
        UserError: There is no such source, or its module is broken.
    """
    program: Source = load_entry("source", source)()
    streams = Streams(seed)
    pixels = torch.empty(count, *spec.shape, dtype=torch.uint8)
    labels = torch.empty(count, dtype=torch.int64)
    with progress.task(f"drawing {source}", count, "images") as task:
        for start in range(0, count, CHUNK):
            rng = streams.public("public-data", program, spec, start // CHUNK)
            if program.labelled:
                of_chunk = torch.arange(start, start + CHUNK) % classes
            else:
                of_chunk = torch.randint(classes, (CHUNK,), generator=rng)
            stop = min(start + CHUNK, count)
            pixels[start:stop] = program.draw(spec, of_chunk, rng)[: stop - start]
            labels[start:stop] = of_chunk[: stop - start]
            task.advance(stop - start)
    return Images(pixels, labels)


def converted(pixels: Tensor, spec: ImageSpec) -> Tensor:
    """Images in another shape: resized with anti-aliasing, greyed by luma or repeated to RGB.

    Args:
        pixels: ``(N, C, H, W)``, uint8, C 1 or 3.
        spec: The shape wanted, of 1 or 3 channels.

    Returns:
        ``(N, *spec.shape)``, uint8; ``pixels`` itself where nothing is to be done.
    """
    if pixels.shape[1:] == spec.shape:
        return pixels
    images = pixels.float()
    if spec.channels == 1 and images.shape[1] == 3:
        images = (images * images.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    images = F.interpolate(
        images, (spec.height, spec.width), mode="bilinear", antialias=True, align_corners=False
    )
    images = images.expand(-1, spec.channels, -1, -1)
    return images.round().clamp(0, 255).to(torch.uint8)
