"""Images whose class is a bright quarter, and the evaluation of such samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from dpbench.api.evaluator import EvaluationContext, Need
from dpbench.api.profiles import SMOKE
from dpbench.core.cache import Cache
from dpbench.core.images import Images
from dpbench.core.progress import Silent
from dpbench.core.streams import Streams

CLASSES = 4


def images(count: int, seed: int, noise: float = 60) -> Images:
    """Noisy images with one bright quarter for each class."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    pixels = 100 + noise * torch.randn(count, 1, 8, 8, generator=rng)
    for label in range(CLASSES):
        top, left = 4 * (label // 2), 4 * (label % 2)
        pixels[labels == label, :, top : top + 4, left : left + 4] += 40
    return Images(pixels.clamp(0, 255).to(torch.uint8), labels)


def evaluation(
    cache: Path, synthetic: Images, train: Images, test: Images, **changes: object
) -> EvaluationContext:
    """The context of evaluating samples against real images, with profile smoke."""
    context = EvaluationContext(
        dataset="quarters",
        classes=CLASSES,
        synthetic=synthetic,
        open_real={Need.REAL_TRAIN: train, Need.REAL_TEST: test}.__getitem__,
        profile=SMOKE,
        device=torch.device("cpu"),
        streams=Streams(0),
        progress=Silent(),
        cache=Cache(cache),
    )
    return replace(context, **changes)
