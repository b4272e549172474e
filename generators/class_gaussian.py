"""A normal distribution of images for each class: a method of this project, without a network.

Four noisy sums and no training: a bar for generators that are trained with DP-SGD.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dpbench.api.method import Plan, Preset, RunContext, Sampler
from dpbench.core.images import ImageSpec
from dpbench.core.pixels import to_pixels
from dpbench.core.state import State
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo

from ._moments import ClassGaussians, MomentReleases

TUNED = (
    "clipping norms, shares, rank and whitening of the moments were chosen on 5000 images held out "
    "of Fashion-MNIST's train split, which is not accounted for"
)


@dataclass(frozen=True)
class GaussianSampler:
    """Draws images from normal distributions.

    Attributes:
        gaussians: A normal distribution for each class.
        spec: The shape of one image.
    """

    gaussians: ClassGaussians
    spec: ImageSpec

    def sample(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Draw one image for each label, as ``Sampler``."""
        intensities = self.gaussians.draw(labels.cpu(), rng)
        return to_pixels(2 * intensities - 1).view(-1, *self.spec.shape)

    def state(self) -> State:
        """The normal distributions."""
        return vars(self.gaussians)


@dataclass(frozen=True)
class ClassGaussian(MomentReleases):
    """Noisy means and covariances of classes; fields as in ``MomentReleases``."""

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "one normal distribution per class, from noisy sums (ours)"
    private: ClassVar[bool] = True
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset("paper", f"no paper states this; {TUNED}"),
        Preset("laptop", TUNED),
        Preset("smoke", "the smallest that runs", {"frequencies": 36, "rank": 8}),
    )

    def plan(self, info: PrivateSetInfo, budget: PrivacyBudget) -> Plan:
        """Four releases, no training."""
        return Plan(events=self.releases(info, budget))

    def fit(self, private: PrivateImages, run: RunContext) -> Sampler:
        """Release the moments."""
        gaussians = self.release(private, self.releases(private.info, private.budget))
        return GaussianSampler(gaussians, private.info.spec)

    def restore(self, state: State, info: PrivateSetInfo, device: torch.device) -> Sampler:
        """Rebuild the sampler."""
        return GaussianSampler(ClassGaussians(**state), info.spec)


METHOD = ClassGaussian
