"""Broken label histograms and private selections."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dpbench.core.images import Images
from dpbench.privacy.events import HistogramEvent
from dpbench.privacy.mechanisms import PrivateImages

_honest_histogram = PrivateImages.label_histogram  # before a test puts a twin in its place


def _counts(private: PrivateImages) -> Tensor:
    return _honest_histogram(private, HistogramEvent(0.0, "counts"))


def counts_twice(private: PrivateImages, event: HistogramEvent) -> Tensor:
    return 2 * _counts(private)


def counts_pixels_too(private: PrivateImages, event: HistogramEvent) -> Tensor:
    images = private.unprotected()
    return _counts(private) + (images.pixels == 0).sum() / 100


def as_long_as_the_largest_label(private: PrivateImages, event: HistogramEvent) -> Tensor:
    return torch.bincount(private.unprotected().labels, minlength=10).float()


def scores_without_bound(images: Images, candidate: Any, score: Any) -> Tensor:
    return score(candidate, images).double().sum()


def scores_with_a_floor_only(images: Images, candidate: Any, score: Any) -> Tensor:
    return score(candidate, images).double().nan_to_num(nan=0).clamp(min=0).sum()


def lets_scores_sink(images: Images, candidate: Any, score: Any) -> Tensor:
    return score(candidate, images).double().nan_to_num(nan=0).clamp(max=1).sum()


def _selects(scale: float, noise: str = "gumbel") -> Any:
    """Adds ``scale`` times the noise that was asked for, or noise of another kind."""

    def select(private: PrivateImages, candidates: Any, score: Any, event: Any) -> Any:
        images, streams = private.unprotected(), private._PrivateImages__streams  # type: ignore[attr-defined]
        totals = [float(score(candidate, images).sum()) for candidate in candidates]
        draw = getattr(streams.secret("dp-noise", event.purpose, 0), noise)
        noisy = totals + scale * event.noise_multiplier * draw(size=len(totals))
        return candidates[int(noisy.argmax())]

    return select


selects_at_twice_the_sensitivity = _selects(0.5)


selects_the_best = _selects(0.0)


selects_by_gauss = _selects(1.0, "standard_normal")
