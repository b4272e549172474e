"""Images made by programs: public by construction.

Nothing is cached on disk: drawing is fast, and an image is a function of its source, the source's
parameters, the seed and its index.
"""

from __future__ import annotations

import torch

from dpbench.progress import Progress
from dpbench.registry import load
from dpbench.streams import Streams
from dpbench.types import Images, ImageSpec

from ._source import Source

# Random numbers are drawn for whole chunks, so that the images of a chunk are vectorised and yet
# do not depend on how many images are asked for.
CHUNK = 64


def programmatic_images(
    source: str, count: int, spec: ImageSpec, classes: int, seed: int, progress: Progress
) -> Images:
    """Draw labelled images from a source.

    Each image is a function of the source with its parameters, ``spec``, ``seed``, its label and
    its index: fewer images are a prefix of more.

    Args:
        source: Its name; see ``dpbench.registry``.
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
    program: Source = load("source", source)()
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
