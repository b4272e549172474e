"""Memorisation: are synthetic images copies of train images, or nearer to them than by chance?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from dpbench.api.evaluator import EvaluationContext, Need
from dpbench.core.images import Images
from dpbench.core.metrics import Measurement, MetricKind, MetricSpec
from dpbench.core.pixels import image_digests
from dpbench.data.subsets import random_subset
from dpbench.stats.proportions import wilson_interval

from .features.cnn import cnn_extractor

SPACES = {"pixels": "pixels", "cnn": "features of a CNN of the data set"}
# of every space: name, direction, description and kind
METRICS: tuple[tuple[str, bool, str, MetricKind], ...] = (
    ("authpct_{}", True, "synthetic images that are not near-copies of train images", "diagnostic"),
    ("authpct_{}_real", True, "test images that are not near-copies of train images", "reference"),
    ("train_closer_{}", False, "synthetic images nearer to train than to test", "diagnostic"),
    ("train_closer_{}_low", False, "the same, lower end of 95% interval", "bound"),
    ("train_closer_{}_high", False, "the same, upper end of 95% interval", "bound"),
)
COPIES = (
    MetricSpec(
        "train_copies",
        "images",
        False,
        "synthetic images equal to a train image, bit by bit or mirrored, of the whole train split",
        "diagnostic",
    ),
    MetricSpec("train_copies_real", "images", False, "the same of the test images", "reference"),
)
# distances in memory at once: 160 MB of float32
CHUNK_DISTANCES = 40_000_000


@dataclass(frozen=True)
class Neighbours:
    """Nearest reference of each query.

    Attributes:
        index: ``(N,)``, int64, on the CPU: index of the reference.
        squared: ``(N,)``, float64, on the CPU: squared Euclidean distance to it.
    """

    index: Tensor
    squared: Tensor


def nearest(
    queries: Tensor,
    references: Tensor,
    advance: Callable[[float], None] = lambda queries: None,
) -> Neighbours:
    """Find nearest neighbours by Euclidean distance.

    Neighbours are found by matrix products in float32; distances to them are then recomputed from
    differences, so that they are exact for near-copies.

    Args:
        queries: ``(N, D)``, float32. If it is the same tensor as ``references``, the nearest other
            row is found.
        references: ``(M, D)``, float32, on the same device.
        advance: Receives the number of queries of every chunk.
    """
    norms = references.square().sum(1)
    size = max(1, CHUNK_DISTANCES // len(references))
    index, squared = [], []
    for start in range(0, len(queries), size):
        chunk = queries[start : start + size]
        # the norm of the query is omitted: it is the same for all references
        distances = torch.addmm(norms, chunk, references.T, alpha=-2)
        if queries is references:
            rows = torch.arange(len(chunk))
            distances[rows, start + rows] = math.inf
        found = distances.argmin(1)
        index.append(found.cpu())
        squared.append((chunk - references[found]).double().square().sum(1).cpu())
        advance(len(chunk))
    return Neighbours(torch.cat(index), torch.cat(squared))


def authenticity(to_train: Neighbours, among_train: Neighbours) -> float:
    """Compute AuthPct: the share of images that are not near-copies of a train image, in %.

    Alaa et al. 2022: an image is authentic if it is farther from its nearest train
    image than that one is from its own nearest other train image.
    """
    return 100 * (to_train.squared > among_train.squared[to_train.index]).double().mean().item()


def closer_to_train(
    to_train: Neighbours, to_test: Neighbours, references: int
) -> tuple[float, float, float]:
    """Compute the share of images that are closer to train than to test images, with its interval.

    Images are not independent votes: those with the same nearest neighbour vote together, and a
    generator that repeats one image would look certain. Without memorisation, train and test images
    are exchangeable. Over all ways to call half of the M references train images, the number of
    votes for them, a sum of ``c_r``, the number of images nearest to reference r, has the variance
    ``M / (4 (M - 1)) sum_r (c_r - mean c)^2``. The interval is Wilson's for the number of
    independent images with the same variance (at most the actual number), so that it excludes 50%
    when a two-sided permutation test, in its normal limit, rejects at 5%.

    Args:
        to_train: Neighbours of N images among the train images.
        to_test: Neighbours of the same images among the test images.
        references: Number of train images, and of test images.

    Returns:
        The share in [0, 1], where ties count half, and the ends of its 95% interval.
    """
    votes = (to_train.squared < to_test.squared).double()
    votes[to_train.squared == to_test.squared] = 0.5
    count = torch.cat(
        [
            to_train.index.bincount(votes, minlength=references),
            to_test.index.bincount(1 - votes, minlength=references),
        ]
    )
    variance = count.var().item() * len(count) / 4
    share = votes.mean().item()
    effective = len(votes) ** 2 / max(4 * variance, len(votes))
    low, high = wilson_interval(share * effective, effective)
    return share, low, high


def count_copies(images: Images, originals: Images) -> int:
    """Count the images that are equal to an original, bit by bit or mirrored left to right."""
    known = image_digests(originals.pixels)
    same, mirrored = (
        np.isin(image_digests(images.pixels, turned), known) for turned in (False, True)
    )
    return int((same | mirrored).sum())


@dataclass(frozen=True)
class Memorization:
    """Looks for synthetic images that are copies of train images, or too near to them.

    ``train_copies`` counts images that are equal to one of the whole train split, bit by bit or
    mirrored; none are expected, where the test images have none.

    Nearness is measured in two spaces. The larger split is cut to the size of the smaller by the
    evaluation stream, blind to classes. A near-copy of a train image that was cut away goes
    unnoticed, so the shares understate copying from a large train split. The spaces are the pixels
    in [0, 1] and the features of the data set's CNN; the CNN was trained on the train images, so
    its shares can differ from their expectation without any memorisation.

    ``authpct`` (Alaa et al. 2022) of images without memorisation is not 100%: compare it with
    ``authpct_..._real``, that of the test images. ``train_closer`` is the distance-ratio test, the
    share of images whose distance to train over that to test is below one; 50% is expected without
    memorisation, and 50% outside its interval is a sign of it, or of splits that differ.

    All are diagnostics and no proof of privacy: they only see near-copies in these spaces, and a
    generator may leak in other ways. The certificate is the claim.
    """

    version: ClassVar[int] = 2
    summary: ClassVar[str] = "are samples copies of train images, or nearer to them? a diagnostic"
    metrics: ClassVar[tuple[MetricSpec, ...]] = (
        *COPIES,
        *(
            MetricSpec(name.format(space), "%", higher, f"{description}, {where}", kind)
            for space, where in SPACES.items()
            for name, higher, description, kind in METRICS
        ),
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SAMPLES, Need.REAL_TRAIN, Need.REAL_TEST})

    def evaluate(self, case: EvaluationContext) -> list[Measurement]:
        """Count copies, and measure in the pixels and in the features of the data set's CNN."""
        train, test = case.open_real(Need.REAL_TRAIN), case.open_real(Need.REAL_TEST)
        whole = len(train)
        copies = count_copies(case.synthetic, train), count_copies(test, train)
        cnn = cnn_extractor(
            case.dataset, case.classes, train, case.cache, case.device, case.progress
        )

        def intensities(images: Images) -> Tensor:
            return images.pixels.to(case.device).flatten(1).float() / 255

        def features(images: Images) -> Tensor:
            found = cnn.features(images.pixels, case.device, lambda count: None)
            return torch.from_numpy(found).to(case.device)

        def chosen(name: str, images: Images) -> Images:
            return random_subset(
                images, size, case.streams.public("evaluation", "memorization", name)
            )

        size = min(len(train), len(test))
        train, test = chosen("train", train), chosen("test", test)
        values: list[float] = [*copies]
        extractors = ["pixels"] * len(copies)
        total = 2 * len(SPACES) * (len(case.synthetic) + size)
        with case.progress.task("nearest neighbours", total, "images") as task:
            for extractor, embed in (("pixels", intensities), (cnn.id, features)):
                found = _values(embed(case.synthetic), embed(train), embed(test), task.advance)
                values += found
                extractors += [extractor] * len(found)
        return [
            Measurement(
                m.name,
                value,
                m.unit,
                m.higher_is_better,
                n=0 if m.name.endswith("_real") else len(case.synthetic),
                split=Need.REAL_TRAIN.value,
                extractor=extractor,
                n_real=whole if m in COPIES else size,
                seed=case.streams.seed("evaluation", "memorization"),
            )
            for m, value, extractor in zip(self.metrics, values, extractors, strict=True)
        ]


def _values(
    synthetic: Tensor, train: Tensor, test: Tensor, advance: Callable[[float], None]
) -> tuple[float, ...]:
    """Compute the metrics of one space, in their order, in %."""
    among_train = nearest(train, train, advance)
    to_train, to_test = nearest(synthetic, train, advance), nearest(synthetic, test, advance)
    return (
        authenticity(to_train, among_train),
        authenticity(nearest(test, train, advance), among_train),
        *(100 * share for share in closer_to_train(to_train, to_test, len(train))),
    )


EVALUATOR = Memorization
