"""A normal distribution of images for each class: a method of this project, without a network.

Three noisy sums, half a minute and no hyper-parameter that depends on the time there is: what a
generator trained with DP-SGD has to beat.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dpbench.pixels import to_pixels
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.private_images import PrivateImages, PrivateSetInfo
from dpbench.protocols import Plan, Preset, RunContext, Sampler
from dpbench.types import ImageSpec

from ._moments import ClassGaussians, MomentReleases

_TUNED = (
    "clipping norms, shares and rank were chosen on 5000 images held out of Fashion-MNIST's train "
    "split, which is not accounted for"
)


@dataclass(frozen=True)
class GaussianSampler:
    """Draws images from normal distributions.

    Attributes:
        gaussians: One for each class.
        spec: The shape of one image.
    """

    gaussians: ClassGaussians
    spec: ImageSpec

    def sample(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """See ``Sampler``."""
        intensities = self.gaussians.draw(labels.cpu(), rng)
        return to_pixels(2 * intensities - 1).view(-1, *self.spec.shape)


@dataclass(frozen=True)
class ClassGaussian(MomentReleases):
    """Noisy means and covariances of the classes; fields as in ``MomentReleases``."""

    summary: ClassVar[str] = "one normal distribution per class, by three noisy sums (ours)"
    private: ClassVar[bool] = True
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset("paper", _TUNED),
        Preset("laptop", _TUNED),
        Preset("claims", _TUNED),
        Preset("smoke", "the smallest that runs", {"frequencies": 36, "rank": 8}),
    )

    def plan(self, info: PrivateSetInfo, budget: PrivacyBudget) -> Plan:
        """Three releases, no training."""
        return Plan(events=self.events(budget))

    def fit(self, private: PrivateImages, run: RunContext) -> Sampler:
        """Release the moments."""
        gaussians = self.release(private, self.events(private.budget))
        return GaussianSampler(gaussians, private.info.spec)


METHOD = ClassGaussian
