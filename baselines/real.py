"""The private train set itself: a ceiling for every generator. Not private."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from dpbench.api.method import Plan, Preset, RunContext, Sampler
from dpbench.core.images import Images
from dpbench.core.state import State
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo


@dataclass
class RealSampler:
    """Deals out real images class by class, each once before any of them again.

    Attributes:
        images: The real images, in the order in which they are dealt.
        dealt: Number of images dealt so far, by class.
    """

    images: Images
    dealt: dict[int, int] = field(default_factory=dict)

    def sample(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Deal one image for each label, continuing where the last call stopped."""
        out = torch.empty(len(labels), *self.images.spec.shape, dtype=torch.uint8)
        for label in set(labels.tolist()):
            wanted = (labels == label).nonzero().squeeze(1)
            own = (self.images.labels == label).nonzero().squeeze(1)
            start = self.dealt.get(label, 0)
            self.dealt[label] = start + len(wanted)
            out[wanted] = self.images.pixels[own[(start + torch.arange(len(wanted))) % len(own)]]
        return out

    def state(self) -> State:
        """The images, of which none is dealt yet."""
        return vars(self.images)


@dataclass(frozen=True)
class Real:
    """The ceiling: real train images in place of synthetic ones."""

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "the real train images: a ceiling, not private"
    reference: ClassVar[str] = "ceiling"
    private: ClassVar[bool] = False
    presets: ClassVar[tuple[Preset, ...]] = ()

    def plan(self, info: PrivateSetInfo, budget: PrivacyBudget) -> Plan:
        """Nothing to train."""
        return Plan()

    def fit(self, private: PrivateImages, run: RunContext) -> Sampler:
        """Shuffle the images."""
        images = private.unprotected()
        order = torch.randperm(len(images), generator=run.streams.public("sampling", "order"))
        return RealSampler(images[order])

    def restore(self, state: State, info: PrivateSetInfo, device: torch.device) -> Sampler:
        """Rebuild the sampler."""
        return RealSampler(Images(**state))


METHOD = Real
