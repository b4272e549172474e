"""The denoising loss with noise multiplicity (Dockhorn et al. 2022, equation 5).

The copies of an image may differ in more than their noise: Ghalebikesabi et al. 2023, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dpbench.core.pixels import from_pixels
from dpbench.privacy.clipping import Predict, as_rows, of_examples
from dpbench.training.augmentation import PLAIN, Augmentation

from .preconditioning import EVERYWHERE, Interval, Parameterization


@dataclass(frozen=True)
class DenoisingObjective:
    """Weighted squared error of the denoised image, averaged over K noise levels and pixels.

    Attributes:
        parameterization: Loss weight and distribution of sigma.
        multiplicity: K.
        null_label: Index of the null class, which is the number of classes.
        label_dropout: Probability of hiding an image's label, in all its copies at once.
        interval: Range of ln sigma that is trained.
        augmentation: Applied to every copy independently.
    """

    parameterization: Parameterization
    multiplicity: int
    null_label: int
    label_dropout: float
    interval: Interval = EVERYWHERE
    augmentation: Augmentation = PLAIN

    def draw(self, pixels: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, ...]:
        """Draw K noisy copies of each image.

        Args:
            pixels: ``(B, C, H, W)``, uint8.
            labels: ``(B,)``, int64.
            rng: Source of randomness, on the same device.

        Returns:
            Clean images ``(B, K, C, H, W)``, noisy images of the same shape, sigma ``(B, K)`` and
            labels ``(B, K)``.
        """
        device, count = pixels.device, len(pixels)
        dropped = torch.rand(count, generator=rng, device=device) < self.label_dropout
        labels = labels.where(~dropped, self.null_label)[:, None].expand(-1, self.multiplicity)
        u = torch.rand((count, self.multiplicity), generator=rng, device=device)
        sigma = self.parameterization.quantile(u, self.interval)
        clean = from_pixels(pixels)[:, None].expand(-1, self.multiplicity, -1, -1, -1)
        clean = self.augmentation(clean, rng)
        noise = torch.randn(clean.shape, generator=rng, device=device)
        return clean, clean + sigma[:, :, None, None, None] * noise, sigma, labels

    def loss(self, predict: Predict, *copies: Tensor) -> Tensor:
        """Return the mean loss of each image over its copies, ``(B,)``."""
        clean, noisy, sigma, labels = copies
        denoised = of_examples(predict(*map(as_rows, (noisy, sigma, labels))), len(clean))
        error = (denoised - clean).square().mean(dim=(2, 3, 4))
        return (self.parameterization.weight(sigma) * error).mean(dim=1)
