"""A diffusion model: what its network is, how it is trained and how images are drawn from it.

Methods keep their hyper-parameters as flat fields, for ``--set``; this toolkit takes them grouped.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dpbench.core.checks import check_not_negative, check_shares
from dpbench.core.errors import UserError
from dpbench.core.images import ImageSpec, Precision
from dpbench.core.state import State
from dpbench.core.streams import Streams, initialised
from dpbench.parallel.cores import core_count
from dpbench.privacy.dpsgd import Learner
from dpbench.privacy.mechanisms import PrivateSetInfo
from dpbench.privacy.throughput import examples_per_second
from dpbench.training.augmentation import PLAIN, Augmentation
from dpbench.training.averaging import ExponentialAverage

from .denoiser import Centres, ClassStatistics, Denoiser, Statistics
from .loss import DenoisingObjective
from .networks.ddpmpp import DDPMPP
from .networks.unet import UNetSettings
from .preconditioning import CONTINUOUS, EVERYWHERE, Interval, Parameterization
from .samplers import DiffusionSampler, SamplerSettings, karras_levels

_Settings = TypeVar("_Settings")
_PROBED = 3  # noise levels of the draws that are timed
_NO_NOISE = 1e-3  # a sigma at which the network's input has the variance of the data
_PROBED_BATCH = 32  # images, so that there is work for every core


@dataclass(frozen=True)
class DiffusionModel:
    """A denoiser that can be built, trained and sampled from.

    Attributes:
        network: Builds the network from the shape of images and the number of classes.
        parameterization: Preconditioning, loss weight and distribution of noise levels.
        sampling: How images are drawn.
        precision: Precision of the network's activations.
        label_dropout: Probability of training an image without its label.
        augmentation: Applied to every noisy copy of an image.
        average_decay: Decay of the weights' exponential moving average.
        centre_learning_rate: Adam's learning rate of the classes' centres; 0: there are none.
        centre_widths: Whether each pixel of a centre has a learnt variance.
        natural_spectrum: Exponent of the power law by which the variance of the centres'
            distributions falls with frequency; 0: it does not.
        statistics: Whether centres are given in place of learnt.
        trained_sigma_min: Lowest sigma that is trained; 0: all are.
    """

    network: Callable[..., nn.Module]
    parameterization: Parameterization
    sampling: SamplerSettings
    precision: Precision
    average_decay: float
    centre_learning_rate: float
    centre_widths: bool
    label_dropout: float = 0.0
    augmentation: Augmentation = PLAIN
    statistics: bool = False
    trained_sigma_min: float = 0.0
    natural_spectrum: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UserError: A value is out of its range.
        """
        check_shares(self, "average_decay", "label_dropout")
        check_not_negative(self, "centre_learning_rate", "trained_sigma_min", "natural_spectrum")
        if self.centre_widths and not self.centre_learning_rate:
            raise UserError("centre_widths needs centres: --set centre_learning_rate=0.004")
        if self.natural_spectrum and not (self.centre_learning_rate or self.statistics):
            raise UserError(
                "natural_spectrum is that of normal distributions, and there are none: "
                "--set natural_spectrum=0"
            )
        if self.statistics and self.centre_learning_rate:
            raise UserError(
                "centres are learnt or given: --set centre_learning_rate=0 or statistics_share=0"
            )
        last = self.sampling.noise_levels()[-1]
        if self.trained_sigma_min > last * (1 + 1e-6):
            raise UserError(
                f"sampling ends at sigma {last:g}, which trained_sigma_min leaves untrained: "
                f"--set trained_sigma_min={last:g}, or 0"
            )
        if self.sampling.guidance and not self.label_dropout:
            raise UserError(
                "guidance needs images without label, which label_dropout = 0 never trains: "
                "--set label_dropout=0.1"
            )

    def denoiser(self, info: PrivateSetInfo, streams: Streams, name: str) -> Denoiser:
        """Build a denoiser whose initial weights are drawn from the stream of that name."""
        seed = streams.seed("initial", name)
        network = initialised(self._network, info.spec, info.classes, seed=seed)
        return Denoiser(network, self.parameterization, self.precision, self._centres(info))

    def given(self, denoiser: Denoiser, statistics: ClassStatistics) -> Denoiser:
        """The same network with centres that are given."""
        device = next(denoiser.parameters()).device
        centres = self._statistics(2 * statistics.means - 1, 4 * statistics.variances).to(device)
        return Denoiser(denoiser.network, self.parameterization, self.precision, centres)

    def _statistics(self, means: Tensor, variances: Tensor) -> Statistics:
        _, _, c_in, _ = self.parameterization.coefficients(torch.tensor([_NO_NOISE], device="cpu"))
        return Statistics(means, variances, 1 / c_in.item() ** 2, self.natural_spectrum)

    def parameters(self, info: PrivateSetInfo) -> int:
        """Count the parameters of a denoiser.

        Raises:
            UserError: The network does not fit the images.
        """
        with torch.device("meta"):
            network = self._network(info.spec, info.classes)
            denoiser = Denoiser(network, self.parameterization, centres=self._centres(info))
        return sum(parameter.numel() for parameter in denoiser.parameters())

    def _network(self, spec: ImageSpec, classes: int) -> nn.Module:
        if self.statistics:
            return self.network(spec, 1, seen=Statistics.SEEN)  # which it is told of all
        return self.network(spec, classes)

    def _centres(self, info: PrivateSetInfo) -> Centres | Statistics | None:
        if self.statistics:
            blank = torch.zeros(info.classes, *info.spec.shape)
            return self._statistics(blank, torch.ones_like(blank))
        if not self.centre_learning_rate:
            return None
        return Centres(info.spec, info.classes, self.centre_widths, self.natural_spectrum)

    def objective(
        self, classes: int, multiplicity: int, interval: Interval = EVERYWHERE
    ) -> DenoisingObjective:
        """The loss at ``multiplicity`` noise levels with ln sigma in ``interval``, if trained."""
        return DenoisingObjective(
            parameterization=self.parameterization,
            multiplicity=multiplicity,
            null_label=classes,
            label_dropout=self.label_dropout,
            interval=self.trained(interval),
            augmentation=self.augmentation,
        )

    def trained(self, interval: Interval) -> Interval:
        """The part of a range of ln sigma that is trained.

        Raises:
            UserError: There is none.
        """
        if not self.trained_sigma_min:
            return interval
        lowest = math.log(self.trained_sigma_min)
        if lowest >= interval[1]:
            raise UserError(
                f"trained_sigma_min={self.trained_sigma_min:g} leaves all of a stage untrained, "
                f"which ends at sigma {math.exp(interval[1]):g}: --set trained_sigma_min=0"
            )
        return max(interval[0], lowest), interval[1]

    def learner(self, denoiser: Denoiser, learning_rate: float) -> Learner:
        """Adam and a moving average of the weights; centres have their own learning rate."""
        groups = [{"params": list(denoiser.network.parameters()), "lr": learning_rate}]
        if isinstance(denoiser.centres, Centres):
            centres = list(denoiser.centres.parameters())
            groups.append({"params": centres, "lr": self.centre_learning_rate})
        return Learner(
            denoiser,
            torch.optim.Adam(groups, fused=True),
            ExponentialAverage(denoiser, self.average_decay),
        )

    def sampler(self, info: PrivateSetInfo, denoiser: nn.Module) -> DiffusionSampler:
        """Draws images from a trained denoiser."""
        return DiffusionSampler(denoiser, info.spec, info.classes, self.sampling)

    def sampling_probe(self, info: PrivateSetInfo) -> Callable[[torch.device], float]:
        """What measures on a device how many images are drawn in a second, for a plan."""

        def images_per_second(device: torch.device) -> float:
            denoiser = self.denoiser(info, Streams(0), "probe")
            sampler = replace(
                self.sampler(info, denoiser),
                settings=replace(self.sampling, steps=_PROBED),
                batch_size=_PROBED_BATCH,
            )

            def draw(count: int) -> None:
                labels = torch.arange(count) % info.classes
                sampler.sample(labels, torch.Generator(device).manual_seed(0))

            speed = examples_per_second(draw, core_count() * 4 * _PROBED_BATCH)
            return speed * _PROBED / self.sampling.steps

        return images_per_second

    def blank(self, info: PrivateSetInfo) -> Denoiser:
        """A denoiser whose weights are yet to be loaded."""
        return self.denoiser(info, Streams(0), "blank")

    def restored(self, info: PrivateSetInfo, denoiser: nn.Module, state: State) -> DiffusionSampler:
        """Draws images from a denoiser of which a ``DiffusionSampler`` gave the state."""
        denoiser.load_state_dict(state)
        return self.sampler(info, denoiser)


def continuous_model(method: Any, *, statistics: bool = False) -> DiffusionModel:
    """The model of a method with DDPM++, EDM or v, and guidance.

    Args:
        method: Has the fields of ``dpdm.DPDM`` that are not of private training.
        statistics: As ``DiffusionModel.statistics``.

    Raises:
        UserError: A value is out of its range.
    """
    if method.parameterization not in CONTINUOUS:
        raise UserError(
            f"unknown parameterization {method.parameterization!r}: "
            f"choose one of {', '.join(CONTINUOUS)}"
        )
    return DiffusionModel(
        network=functools.partial(DDPMPP, settings=pick(UNetSettings, method)),
        parameterization=CONTINUOUS[method.parameterization],
        sampling=SamplerSettings(
            solver=method.solver,
            steps=method.sampling_steps,
            levels=functools.partial(karras_levels, sigma_min=method.sigma_min),
            churn=method.churn,
            churn_min=method.churn_min,
            guidance=method.guidance,
        ),
        precision=method.precision,
        average_decay=method.average_decay,
        centre_learning_rate=method.centre_learning_rate,
        centre_widths=method.centre_widths,
        label_dropout=method.label_dropout,
        statistics=statistics,
        trained_sigma_min=method.trained_sigma_min,
        natural_spectrum=method.natural_spectrum,
    )


def pick(kind: Callable[..., _Settings], method: object) -> _Settings:
    """Build grouped settings from a method's fields of the same names.

    Args:
        kind: A dataclass; the method has all of its fields.
        method: Where the values are taken from.
    """
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: getattr(method, name) for name in names})
