"""Feature extractors, and a cache of the features of real images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import torch
from cleanfid.resize import make_resizer
from numpy.typing import NDArray
from torch import Tensor

from dpbench.core.cache import Cache
from dpbench.core.images import Images, content_hash


@dataclass(frozen=True)
class Extractor:
    """A fixed function from images to features.

    Attributes:
        id: Name in records, with a hash of the weights or of the data behind them.
        dimension: Number of features, D.
        network: Maps ``(B, C, H, W)``, uint8, to ``(B, D)``, float32.
        batch: Number of images per forward pass.
        head: ``(D, K)``, float32, maps features to the logits (without bias) of a general-purpose
            classifier; None if there is no such classifier.
    """

    id: str
    dimension: int
    network: Callable[[Tensor], Tensor]
    batch: int
    head: NDArray[np.float32] | None = None

    @torch.no_grad()
    def features(
        self, pixels: Tensor, device: torch.device, advance: Callable[[float], None]
    ) -> NDArray[np.float32]:
        """Compute features of images.

        Args:
            pixels: ``(N, C, H, W)``, uint8.
            device: Device the extractor was made on.
            advance: Receives the number of images of every batch.

        Returns:
            ``(N, D)``, float32.
        """
        batches = []
        for start in range(0, len(pixels), self.batch):
            batch = pixels[start : start + self.batch]
            batches.append(self.network(batch.to(device)).cpu())
            advance(len(batch))
        return torch.cat(batches).numpy()


def cached_features(
    extractor: Extractor,
    images: Images,
    cache: Cache,
    device: torch.device,
    advance: Callable[[float], None],
) -> NDArray[np.float32]:
    """Compute features of images that recur in other runs, or read them from the cache.

    Args:
        extractor: Feature extractor.
        images: N images; their features are keyed by the hash of their content and the kind of
            device, on which the last digits of features depend.
        cache: Keeps the features.
        device: Device the extractor was made on.
        advance: Receives the number of images of every batch.

    Returns:
        ``(N, D)``, float32.
    """
    content = content_hash(images)
    name = f"{extractor.id}-{content}-{device.type}.features.npy"

    def load(handle: BinaryIO) -> NDArray[np.float32]:
        features: NDArray[np.float32] = np.load(handle, allow_pickle=False)
        if features.shape != (len(images), extractor.dimension) or features.dtype != np.float32:
            raise ValueError(f"holds {features.dtype} of shape {features.shape}")
        return features

    found = cache.find(name, load)
    if found is not None:
        advance(len(images))
        return found
    features = extractor.features(images.pixels, device, advance)
    cache.keep(name, lambda handle: np.save(handle, features))
    return features


def clean_resize(pixels: Tensor, side: int) -> Tensor:
    """Resize as clean-fid does: Pillow's antialiased bicubic filter on floats, no rounding.

    Parmar et al. 2022, section 3. Grey images are repeated to three channels.

    Args:
        pixels: ``(B, C, H, W)``, uint8, C 1 or 3.
        side: Height and width of the results.

    Returns:
        ``(B, 3, side, side)``, float32 in [0, 255], on the device of ``pixels``.
    """
    resize = make_resizer("PIL", False, "bicubic", (side, side))
    images = pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()
    resized = torch.from_numpy(np.stack([resize(image) for image in images]))
    return resized.permute(0, 3, 1, 2).to(pixels.device)
