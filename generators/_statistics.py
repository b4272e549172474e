"""Means and deviations of the pixels of each class, from three noisy sums.

Images are released by their low frequencies: the noise then falls on few coefficients, and is as
smooth as what they show.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 (its customary name)
from torch import Tensor

from dpbench.api.sources import PublicSource
from dpbench.core.images import Images
from dpbench.core.progress import Progress
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.calibration import calibrated
from dpbench.privacy.events import DPSGDEvent, GaussianEvent, HistogramEvent
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo, by_class
from dpbench.training.pretraining import Pretraining

from ._class_sizes import class_sizes, sizes_event
from ._moments import low_frequencies
from .diffusion.denoiser import ClassStatistics, Denoiser
from .diffusion.model import DiffusionModel
from .diffusion.preconditioning import EVERYWHERE, Interval
from .diffusion.training import PrivateTraining, PublicTraining, opened_once

Releases = tuple[HistogramEvent, GaussianEvent, GaussianEvent]
# Share of an image's values that are released: half the resolution.
_KEPT = 4
# Clipping norms, as root mean squares over pixels: of an image, and of the squares of an image less
# the mean of its class, intensities in [0, 1].
_MEAN_NORM, _SQUARES_NORM = 0.6, 0.14
# The means' share of the budget, in inverse squares of noise multipliers; the squares get the rest.
_MEAN_SHARE = 0.4
_LEAST_VARIANCE = 0.025**2


def statistics_events(info: PrivateSetInfo, budget: PrivacyBudget) -> Releases:
    """Calibrate the releases, which spend the budget together."""
    side = math.sqrt(math.prod(info.spec.shape))
    whole = calibrated(GaussianEvent(1.0, 1.0, "class statistics"), budget).noise_multiplier
    sizes = sizes_event(whole)
    means = GaussianEvent(whole / math.sqrt(_MEAN_SHARE), _MEAN_NORM * side, "class means")
    squares = GaussianEvent(1.0, _SQUARES_NORM * side, "class variances")
    return sizes, means, calibrated(squares, budget, (sizes, means))


def statistics_and_training(
    share: float, training: PrivateTraining, info: PrivateSetInfo, budget: PrivacyBudget
) -> tuple[Releases | None, DPSGDEvent]:
    """The events of a method whose denoiser starts from class statistics, or from none.

    Args:
        share: Share of epsilon spent on the statistics; 0: there are none.
        training: Spends the rest.
        info: What is public about the private set.
        budget: Privacy budget of the run.
    """
    if not share:
        return None, training.event(info, budget)
    releases = statistics_events(info, budget.part(share))
    return releases, training.event(info, budget, releases)


def release_statistics(private: PrivateImages, events: Releases) -> ClassStatistics:
    """Release the statistics, spending ``events``, which are those of ``statistics_events``."""
    info = private.info
    for_sizes, for_means, for_variances = events
    # in float64 an image's coefficients do not depend on the images beside it
    waves = low_frequencies(info.spec, math.prod(info.spec.shape) // _KEPT).double()
    sizes = class_sizes(private, for_sizes)[:, None]

    def mean_of(values: Tensor, labels: Tensor) -> Tensor:
        return by_class((values @ waves.T).float(), labels, info.classes)

    def pixels(images: Images) -> Tensor:
        return images.pixels.flatten(1).double() / 255

    total = private.gaussian_sum(lambda part: mean_of(pixels(part), part.labels), for_means)
    means = total.view(info.classes, -1) / sizes @ waves

    def squares(images: Images) -> Tensor:
        return (pixels(images) - means[images.labels]).square()

    total = private.gaussian_sum(lambda part: mean_of(squares(part), part.labels), for_variances)
    variances = total.view(info.classes, -1) / sizes @ waves
    return _shaped(means, variances, info.spec.shape)


def statistics_of(images: Images, classes: int) -> ClassStatistics:
    """The statistics of images that are not private; of a class without images, those of all."""
    pixels = images.pixels.flatten(1).double() / 255
    of_class = F.one_hot(images.labels, classes).double()
    sizes = of_class.sum(0)[:, None]
    means = torch.where(sizes > 0, of_class.T @ pixels / sizes.clamp(min=1), pixels.mean(0))
    squares = of_class.T @ (pixels - means[images.labels]).square() / sizes.clamp(min=1)
    variances = torch.where(sizes > 0, squares, pixels.var(0, correction=0))
    return _shaped(means, variances, images.spec.shape)


def pretrain(
    model: DiffusionModel,
    denoiser: Denoiser,
    training: PublicTraining,
    pretraining: Pretraining,
    source: PublicSource,
    *,
    count: int,
    classes: int,
    labelled: bool,
    progress: Progress,
    interval: Interval = EVERYWHERE,
) -> None:
    """Load the public weights of a denoiser, or train and keep them.

    A model with class statistics trains with those of the public classes, and keeps its network
    alone: private classes have others.

    Args:
        model: Gives the loss and the optimizer.
        denoiser: Trained in place.
        training: How it is trained.
        pretraining: Keeps the weights.
        source: Public images, opened only if weights are to be trained.
        count: Number of them, at most.
        classes: Number of their classes.
        labelled: Whether the source's labels are kept, rather than drawn uniformly at random.
        progress: Receives progress updates.
        interval: Range of ln sigma that is trained.
    """
    kept = denoiser.network if model.statistics else denoiser
    if pretraining.load(kept):
        return
    images = opened_once(source, count, classes, labelled, pretraining.streams, progress)
    trained = denoiser
    if model.statistics:
        trained = model.given(denoiser, statistics_of(images(), classes))
    training.train(
        model,
        trained,
        images=images,
        streams=pretraining.streams,
        stage=pretraining.stage,
        classes=classes,
        interval=interval,
    )
    pretraining.save(kept)


def _shaped(means: Tensor, variances: Tensor, shape: tuple[int, ...]) -> ClassStatistics:
    return ClassStatistics(
        means.float().view(-1, *shape),
        variances.float().clamp(min=_LEAST_VARIANCE).view(-1, *shape),
    )
