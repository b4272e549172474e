"""Memorisation: are synthetic images nearer to train images than chance would have them?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dpbench.api.evaluator import EvaluationContext, Need
from dpbench.core.images import Images
from dpbench.core.metrics import Measurement, MetricSpec
from dpbench.data.subsets import subset
from dpbench.stats.proportions import wilson

from .features.cnn import cnn_extractor

SPACES = {"pixels": "pixels", "cnn": "features of a CNN of the data set"}
# distances in memory at a time: 160 MB of float32
CHUNK_DISTANCES = 40_000_000


@dataclass(frozen=True)
class Neighbours:
    """The nearest reference of each query.

    Attributes:
        index: ``(N,)``, int64, on the CPU: its place among the references.
        squared: ``(N,)``, float64, on the CPU: the squared Euclidean distance to it.
    """

    index: Tensor
    squared: Tensor


def nearest(
    queries: Tensor,
    references: Tensor,
    advance: Callable[[float], None] = lambda queries: None,
) -> Neighbours:
    """Nearest neighbours by Euclidean distance.

    Neighbours are found by matrix products in float32; the distance to them is then taken anew
    from differences, so that near-copies have exact ones.

    Args:
        queries: ``(N, D)``, float32. The same tensor as ``references`` asks for the nearest other
            one.
        references: ``(M, D)``, float32, on the same device.
        advance: Told the number of queries of every chunk.
    """
    norms = references.square().sum(1)
    size = max(1, CHUNK_DISTANCES // len(references))
    index, squared = [], []
    for start in range(0, len(queries), size):
        chunk = queries[start : start + size]
        # without the norm of the query, which is the same for all references
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
    """AuthPct: the share of images that are no near-copies of a train image, in %.

    Alaa et al. 2022: an image is authentic if it is farther from its nearest train
    image than that one is from its own nearest other train image.
    """
    return 100 * (to_train.squared > among_train.squared[to_train.index]).double().mean().item()


def closer_to_train(
    to_train: Neighbours, to_test: Neighbours, references: int
) -> tuple[float, float, float]:
    """The share of images that are closer to train than to test images, with its interval.

    Images do not vote alone: those with the same nearest neighbour vote together, and a generator
    that draws one image again and again would look certain. What is known without memorisation
    is that train and test images could be exchanged. Over all ways to call half of the M
    references train images, the votes for them, a sum of ``c_r``, the number of images nearest to
    reference r, have the variance ``M / (4 (M - 1)) sum_r (c_r - mean c)^2``. The interval is
    Wilson's for the number of independent images that would vary as much (the images there are,
    at most), so that 50% lies outside where a two-sided permutation test, in its normal limit,
    rejects at 5%.

    Args:
        to_train: Neighbours of N images among the train images.
        to_test: Neighbours of the same images among the test images.
        references: Number of train images, and of test images.

    Returns:
        Share in [0, 1], where ties count half, and the ends of its 95% interval.
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
    low, high = wilson(share * effective, effective)
    return share, low, high


@dataclass(frozen=True)
class Memorization:
    """Looks for synthetic images that are too near to train images, in two spaces.

    Train and test images are equally many: the larger split is cut by the evaluation stream, blind
    to classes. A copy of a train image that was cut away is not seen, so the shares understate
    copying from a large train split. The spaces are the pixels in [0, 1] and the features of the
    data set's CNN; the latter has seen the train images, so its shares can leave their expectation
    without any memorisation.

    ``authpct`` (Alaa et al. 2022) of images without memorisation is not 100%: compare it with
    ``authpct_..._real``, that of the test images. ``train_closer`` is the distance-ratio test, the
    share of images whose distance to train over that to test is below one; 50% is expected without
    memorisation, and 50% outside its interval is a sign of it, or of splits that differ.

    Both are diagnostics and no proof of privacy: they see near-copies in these spaces alone, and
    a generator may leak what is no copy. The certificate is the claim.
    """

    summary: ClassVar[str] = "are samples nearer to train than to test images? a diagnostic"
    metrics: ClassVar[tuple[MetricSpec, ...]] = tuple(
        MetricSpec(name.format(space), "%", higher, f"{description}, {where}")
        for space, where in SPACES.items()
        for name, higher, description in (
            ("authpct_{}", True, "synthetic images that are no near-copies of train images"),
            ("authpct_{}_real", True, "test images that are no near-copies of train images"),
            ("train_closer_{}", False, "synthetic images nearer to train than to test"),
            ("train_closer_{}_low", False, "the same, lower end of 95% interval"),
            ("train_closer_{}_high", False, "the same, upper end of 95% interval"),
        )
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SAMPLES, Need.REAL_TRAIN, Need.REAL_TEST})

    def evaluate(self, case: EvaluationContext) -> list[Measurement]:
        """Measure in the pixels and in the features of the data set's CNN."""
        train, test = case.open_real(Need.REAL_TRAIN), case.open_real(Need.REAL_TEST)
        cnn = cnn_extractor(
            case.dataset, case.classes, train, case.cache, case.device, case.progress
        )

        def intensities(images: Images) -> Tensor:
            return images.pixels.to(case.device).flatten(1).float() / 255

        def features(images: Images) -> Tensor:
            found = cnn.features(images.pixels, case.device, lambda count: None)
            return torch.from_numpy(found).to(case.device)

        def chosen(name: str, images: Images) -> Images:
            return subset(images, size, case.streams.public("evaluation", "memorization", name))

        size = min(len(train), len(test))
        train, test = chosen("train", train), chosen("test", test)
        values: list[float] = []
        extractors: list[str] = []
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
                n_real=size,
                seed=case.streams.seed("evaluation", "memorization"),
            )
            for m, value, extractor in zip(self.metrics, values, extractors, strict=True)
        ]


def _values(
    synthetic: Tensor, train: Tensor, test: Tensor, advance: Callable[[float], None]
) -> tuple[float, ...]:
    """The metrics of one space, in their order, in %."""
    among_train = nearest(train, train, advance)
    to_train, to_test = nearest(synthetic, train, advance), nearest(synthetic, test, advance)
    return (
        authenticity(to_train, among_train),
        authenticity(nearest(test, train, advance), among_train),
        *(100 * share for share in closer_to_train(to_train, to_test, len(train))),
    )


EVALUATOR = Memorization
