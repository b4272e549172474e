"""One noisy mean image per class: a floor that every private generator should beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dpbench.api.method import Plan, Preset, RunContext, Sampler
from dpbench.core.checks import check_positive
from dpbench.core.images import Images
from dpbench.core.pixels import to_pixels
from dpbench.core.state import State
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.calibration import calibrated
from dpbench.privacy.events import GaussianEvent
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo, by_class


@dataclass(frozen=True)
class ClassMeanSampler:
    """Returns the same image for every label of a class.

    Attributes:
        means: ``(classes, C, H, W)``, uint8.
    """

    means: Tensor

    def sample(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Return the mean of each label, as ``Sampler``."""
        return self.means[labels]

    def state(self) -> State:
        """The means."""
        return {"means": self.means}


@dataclass(frozen=True)
class ClassMean:
    """Noisy class means through one Gaussian release.

    Attributes:
        clipping_norm: C of an image as a vector of intensities in [0, 1].
    """

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "one noisy mean image per class: a floor"
    reference: ClassVar[str] = "floor"
    private: ClassVar[bool] = True
    presets: ClassVar[tuple[Preset, ...]] = ()

    clipping_norm: float = 10.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UserError: The clipping norm is not above 0 and finite.
        """
        check_positive(self, "clipping_norm")

    def plan(self, info: PrivateSetInfo, budget: PrivacyBudget) -> Plan:
        """One release, no training."""
        return Plan(events=(self._event(budget),))

    def _event(self, budget: PrivacyBudget) -> GaussianEvent:
        return calibrated(GaussianEvent(1.0, self.clipping_norm, "class means"), budget)

    def fit(self, private: PrivateImages, run: RunContext) -> Sampler:
        """Release the per-class sums and divide by the public class size N / classes."""
        info = private.info

        def features(images: Images) -> Tensor:
            intensities = images.pixels.flatten(1).float() / 255
            return by_class(intensities, images.labels, info.classes)

        total = private.gaussian_sum(features, self._event(private.budget))
        # the true class sizes are private, so all classes are assumed to be of equal size
        means = total.view(info.classes, *info.spec.shape) / (info.nominal_size / info.classes)
        return ClassMeanSampler(to_pixels(2 * means - 1))

    def restore(self, state: State, info: PrivateSetInfo, device: torch.device) -> Sampler:
        """Rebuild the sampler."""
        return ClassMeanSampler(**state)


METHOD = ClassMean
