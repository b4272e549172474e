"""Predictions of trained classifiers and their accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dpbench.core.images import Images
from dpbench.core.pixels import from_pixels

MEMBERS = 5  # networks of an ensemble: Ghalebikesabi et al. 2023, section 5.6
# in evaluation mode the size of a batch changes speed only
PREDICTION_BATCH = 1000


@torch.no_grad()
def logits(network: nn.Module, pixels: Tensor, device: torch.device) -> Tensor:
    """Return a classifier's logits.

    Args:
        network: On ``device``, in evaluation mode.
        pixels: ``(N, C, H, W)``, uint8.
        device: Device to compute on.

    Returns:
        ``(N, classes)``, float32, on the CPU.
    """
    parts = torch.split(pixels, PREDICTION_BATCH)
    return torch.cat([network(from_pixels(part.to(device))).cpu() for part in parts])


def predict(network: nn.Module, pixels: Tensor, device: torch.device) -> Tensor:
    """Return the class of the largest logit of each image: ``(N,)``, int64; see ``logits``."""
    return logits(network, pixels, device).argmax(1)


def percent(correct: Tensor) -> float:
    """Return the share of True in ``(N,)`` booleans, in %."""
    return 100 * int(correct.sum()) / len(correct)


def accuracy(network: nn.Module, images: Images, device: torch.device) -> float:
    """Return the share of images whose largest logit is that of their label, in %."""
    return percent(predict(network, images.pixels, device) == images.labels)


def ensemble_prediction(members: Sequence[Tensor]) -> Tensor:
    """Return the class with the largest mean probability over the networks, for each image.

    Args:
        members: Logits ``(N, classes)`` of each network.

    Returns:
        ``(N,)``, int64.
    """
    return torch.stack(list(members)).softmax(2).mean(0).argmax(1)
