"""DPDM on top of ``class-gaussian``: a method of this project.

A few noisy sums give a normal distribution for each class. Its optimal denoiser is known in closed
form, so that nothing needs pre-training. DP-SGD trains a network that corrects this denoiser.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from dpbench.api.method import Departure, Plan, Preset, RunContext, Sampler
from dpbench.core.checks import check_parts
from dpbench.core.state import State
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.events import DPSGDEvent
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo

from ._moments import ClassGaussians, MomentReleases, Releases
from .class_gaussian import TUNED
from .diffusion.denoiser import Denoiser
from .diffusion.presets import SAMPLED_ONLY, laptop, smoke
from .dpdm import DPDM


class CentralDenoiser(Denoiser):
    """A denoiser whose network corrects the optimal denoiser of normal distributions.

    Images are ``2 v - 1`` of intensities v. For x = v + sigma n with v from N(m, S) the posterior
    mean is ``m + S (S + sigma^2)^-1 (x - m)``. An image without a label starts from c_skip x.

    Args:
        denoiser: Network and parameterization.
        gaussians: A normal distribution for each class.
    """

    means: Tensor
    axes: Tensor
    variances: Tensor
    rest: Tensor

    def __init__(self, denoiser: Denoiser, gaussians: ClassGaussians) -> None:
        """Keep the network, and the Gaussians in the images' range."""
        super().__init__(denoiser.network, denoiser.parameterization, denoiser.precision)
        classes, size, rank = gaussians.axes.shape
        self.classes = classes
        self.register_buffer("means", 2 * gaussians.means - 1)
        # the axes of all classes side by side: one product serves a batch of any labels
        self.register_buffer("axes", gaussians.axes.transpose(0, 1).reshape(size, classes * rank))
        self.register_buffer("variances", 4 * gaussians.variances)
        self.register_buffer("rest", torch.tensor(4 * gaussians.rest))

    def untrained(self, x: Tensor, sigma: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Start from the posterior mean of the label's Gaussian, as ``Denoiser.untrained``."""
        known = labels < self.classes
        of_class = labels.clamp(max=self.classes - 1)
        noise = sigma[:, None] ** 2
        centred = x.flatten(1) - self.means[of_class]
        flat = self.rest / (self.rest + noise)
        gains = self.variances / (self.variances + noise[:, :, None]) - flat[:, :, None]
        own = torch.arange(self.classes, device=x.device) == of_class[:, None]
        along = (centred @ self.axes).view(len(x), self.classes, -1)
        along = (along * gains * own[:, :, None]).flatten(1)
        estimate = self.means[of_class] + flat * centred + along @ self.axes.T
        plain, scale = super().untrained(x, sigma, labels)
        return torch.where(known[:, None, None, None], estimate.view_as(x), plain), scale


@dataclass(frozen=True)
class DPDMCentral(DPDM, MomentReleases):
    """DPDM on top of class Gaussians; fields as in ``DPDM`` and ``MomentReleases``.

    Attributes:
        central_share: Share of epsilon spent on the Gaussians.
    """

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "class Gaussians by noisy sums, refined with DP-SGD (ours)"
    paper: ClassVar[str] = ""
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset(
            "paper",
            "network and training of DPDM's preset for MNIST and Fashion-MNIST (Dockhorn et al. "
            f"2022); no paper states this; {TUNED}",
            datasets=("mnist", "fashionmnist"),
        ),
        *(
            laptop(
                f"{TUNED}; two trials of the training at epsilon 1 and two at 10 were looked at on "
                "the same images",
                epsilons,
                **SAMPLED_ONLY,
                clipping_norm=0.5,
                learning_rate=rate,
            )
            for epsilons, rate in (((0.0, 3.0), 1e-3), ((3.0, math.inf), 2e-3))
        ),
        smoke(),
    )
    departures: ClassVar[tuple[Departure, ...]] = ()  # there is no paper to depart from

    # not hyper-parameters of this method: images start from the means of the Gaussians
    centre_learning_rate: float = field(default=0.0, init=False)
    centre_widths: bool = field(default=False, init=False)
    natural_spectrum: float = field(default=0.0, init=False)
    label_dropout: float = 0.0
    central_share: float = 0.5

    def __post_init__(self) -> None:
        """Check what can be checked without images.

        Raises:
            UserError: A value is out of its range.
        """
        super().__post_init__()
        MomentReleases.__post_init__(self)
        check_parts(self, "central_share")

    def plan(self, info: PrivateSetInfo, budget: PrivacyBudget) -> Plan:
        """Releases, then a private stage."""
        moments, training = self._events(info, budget)
        return Plan(
            parameters=self.model().parameters(info),
            stages=(self.training().stage(self.model(), info),),
            events=(*moments, training),
            sampling=self.model().sampling_probe(info),
        )

    def _events(self, info: PrivateSetInfo, budget: PrivacyBudget) -> tuple[Releases, DPSGDEvent]:
        moments = self.releases(info, budget.part(self.central_share))
        return moments, self.training().event(info, budget, moments)

    def fit(self, private: PrivateImages, run: RunContext) -> Sampler:
        """Release the moments, then train the denoiser."""
        model = self.model()
        moments, event = self._events(private.info, private.budget)
        gaussians = self.release(private, moments)
        plain = model.denoiser(private.info, run.streams, "denoiser")
        denoiser = CentralDenoiser(plain, gaussians).to(run.device)
        self.training().train(model, denoiser, private, event, run)
        return model.sampler(private.info, denoiser)

    def restore(self, state: State, info: PrivateSetInfo, device: torch.device) -> Sampler:
        """Rebuild the denoiser."""
        model, size = self.model(), math.prod(info.spec.shape)
        classes, rank = state["variances"].shape
        gaussians = ClassGaussians(
            means=torch.zeros(classes, size),
            axes=torch.zeros(classes, size, rank),
            variances=torch.zeros(classes, rank),
            rest=0.0,
        )
        denoiser = CentralDenoiser(model.blank(info), gaussians)
        return model.restored(info, denoiser, state)


METHOD = DPDMCentral
