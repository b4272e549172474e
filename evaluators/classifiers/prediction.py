"""What trained classifiers say of images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dpbench.core.images import Images
from dpbench.core.pixels import from_pixels

# in evaluation mode the size of a batch changes speed only
PREDICTION_BATCH = 1000


@torch.no_grad()
def logits(network: nn.Module, pixels: Tensor, device: torch.device) -> Tensor:
    """What a classifier makes of images.

    Args:
        network: On ``device``, in evaluation mode.
        pixels: ``(N, C, H, W)``, uint8.
        device: Where to compute.

    Returns:
        ``(N, classes)``, float32, on the CPU.
    """
    parts = torch.split(pixels, PREDICTION_BATCH)
    return torch.cat([network(from_pixels(part.to(device))).cpu() for part in parts])


def predict(network: nn.Module, pixels: Tensor, device: torch.device) -> Tensor:
    """The class of the largest logit of each image: ``(N,)``, int64; otherwise as ``logits``."""
    return logits(network, pixels, device).argmax(1)


def accuracy(network: nn.Module, images: Images, device: torch.device) -> float:
    """Share of images whose largest logit is that of their label, in %."""
    correct = predict(network, images.pixels, device) == images.labels
    return 100 * int(correct.sum()) / len(images)


def ensemble(members: Sequence[Tensor]) -> Tensor:
    """The class of the largest probability, averaged over networks, of each image.

    Args:
        members: Of each network ``(N, classes)`` logits.

    Returns:
        ``(N,)``, int64.
    """
    return torch.stack(list(members)).softmax(2).mean(0).argmax(1)
