"""A normal distribution of images for each class, from four noisy sums.

The sums release the sizes and the means of the classes; then the covariance that all classes have
in common, which gives a subspace and its scales; then the covariance of each class in it. Each
release makes the next one cheap: images that are centred, projected and scaled have a small norm,
and a small norm needs little noise.

The effect of noise on a symmetric matrix is known: its own eigenvalues fill a semicircle of radius
``edge``, and a true eigenvalue l > edge / 2 shows as l + edge^2 / (4 l), on an axis that is off by
an angle of cos^2 = 1 - edge^2 / (4 l^2) (Benaych-Georges and Nadakuditi 2011, arXiv 0910.2120,
section 3.1). So eigenvalues within the edge are set to 0, and those beyond it to l. The variance
along the axis that shows is less, l cos^2, but samples with it would vary less than images do: on
held-out images of Fashion-MNIST a CNN trained on them was 3 points worse at epsilon 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dpbench.core.checks import check_counts, check_positive
from dpbench.core.errors import UserError
from dpbench.core.images import Images, ImageSpec
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.calibration import calibrated
from dpbench.privacy.events import GaussianEvent, HistogramEvent
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo, by_class

from ._class_sizes import SIZES_SHARE, class_sizes, sizes_event
from ._cosines import cosines

Releases = tuple[HistogramEvent, GaussianEvent, GaussianEvent, GaussianEvent]
# The common subspace is scaled by its variances to minus this power before the classes' covariances
# are released: 0 gives equal noise in all directions, 0.5 noise in proportion to their deviations.
WHITENING = 0.25
# Variances of intensities below this are negligible.
_NEGLIGIBLE = 1e-6


@dataclass(frozen=True)
class ClassGaussians:
    """A normal distribution of images, intensities in [0, 1], for each class.

    Attributes:
        means: ``(classes, D)``, float32; D = C * H * W.
        axes: ``(classes, D, R)``: orthonormal principal axes.
        variances: ``(classes, R)``: variances along the axes, not below 0.
        rest: Variance along each of the other D - R directions, averaged over classes and released
            coefficients; not below 0.
    """

    means: Tensor
    axes: Tensor
    variances: Tensor
    rest: float

    def draw(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Draw an image along the axes for each label.

        Args:
            labels: ``(N,)``, int64.
            rng: Source of randomness, on the device to compute on.

        Returns:
            ``(N, D)``, float32, on the CPU; may leave [0, 1].
        """
        shape = (len(labels), self.variances.shape[1])
        along = torch.randn(shape, generator=rng, device=rng.device).cpu()
        images = self.means[labels]
        for label in range(len(self.means)):
            rows = labels == label
            images[rows] += along[rows] * self.variances[label].sqrt() @ self.axes[label].T
        return images


@dataclass(frozen=True)
class MomentReleases:
    """How the moments of the classes are released.

    Clipping norms of images are given per pixel, as root mean squares: the norm of an image of D
    values is sqrt(D) times that.

    Attributes:
        frequencies: Number of an image's coefficients that are used: those of its discrete cosine
            transform with the lowest frequencies, shared out evenly over the channels.
        rank: Largest dimension of the common subspace.
        mean_norm: Clipping norm of an image, intensities in [0, 1], per pixel.
        spread_norm: Clipping norm of an image less the mean of its class, per pixel.
        class_norm: Clipping norm of the same in the subspace, scaled to an expected square of 1.
        mean_share: The means' share of the budget, in inverse squares of noise multipliers.
        common_share: The common covariance's share; the class sizes get 2%, and the classes'
            covariances the rest.
    """

    frequencies: int = 196
    rank: int = 100
    mean_norm: float = 0.6
    spread_norm: float = 0.2
    class_norm: float = 1.2
    mean_share: float = 0.1
    common_share: float = 0.2

    def __post_init__(self) -> None:
        """Check what can be checked without images.

        Raises:
            UserError: A value is out of its range.
        """
        check_counts(self, "frequencies", "rank")
        check_positive(self, "mean_norm", "spread_norm", "class_norm", "mean_share", "common_share")
        if self.mean_share + self.common_share + SIZES_SHARE >= 1:
            raise UserError(
                f"mean_share and common_share must add up to less than {1 - SIZES_SHARE:g}, got "
                f"{self.mean_share:g} and {self.common_share:g}"
            )

    def releases(self, info: PrivateSetInfo, budget: PrivacyBudget) -> Releases:
        """Calibrate the four releases, which spend the budget together."""
        whole = calibrated(GaussianEvent(1.0, 1.0, "class moments"), budget).noise_multiplier
        values = math.prod(info.spec.shape)
        sizes = sizes_event(whole)
        means = GaussianEvent(
            whole / math.sqrt(self.mean_share), self.mean_norm * math.sqrt(values), "class means"
        )
        # the norm of an outer product is the square of its vector's norm
        common = GaussianEvent(
            whole / math.sqrt(self.common_share), self.spread_norm**2 * values, "common covariance"
        )
        of_classes = GaussianEvent(1.0, self.class_norm**2, "class covariances")
        return sizes, means, common, calibrated(of_classes, budget, (sizes, means, common))

    def release(self, private: PrivateImages, events: Releases) -> ClassGaussians:
        """Release the moments, spending ``events``, which are those of ``releases``."""
        info = private.info
        for_sizes, for_means, for_common, for_classes = events
        # in float64 an image's coefficients do not depend on the images beside it
        waves = low_frequencies(info.spec, self.frequencies).double()
        sizes = class_sizes(private, for_sizes)

        def coefficients(images: Images) -> Tensor:
            return images.pixels.flatten(1).double() / 255 @ waves.T

        total = private.gaussian_sum(
            lambda part: by_class(coefficients(part).float(), part.labels, info.classes),
            for_means,
        )
        means = total.view(info.classes, len(waves)) / sizes[:, None]

        def centred(images: Images) -> Tensor:
            return coefficients(images) - means[images.labels]

        total = private.gaussian_sum(lambda part: outer_products(centred(part).float()), for_common)
        common = symmetric(total / info.nominal_size)
        seen, axes = denoised(common, _deviation(for_common) / info.nominal_size)
        # keep at least one axis: an empty subspace has no scales
        kept = seen.argsort(descending=True)[: max(1, min(self.rank, int((seen > 0).sum())))]
        variances, axes = seen[kept].clamp(min=_NEGLIGIBLE), axes[:, kept]
        others = max(1, waves.shape[1] - len(kept))
        rest = (common.trace() - variances.sum()).clamp(min=0) / others

        # the covariance expected of a class in the scaled subspace, with trace 1
        expected = variances ** (1 - 2 * WHITENING)
        scales = variances**WHITENING * expected.sum().sqrt()
        expected = expected / expected.sum()

        def scaled(images: Images) -> Tensor:
            return (centred(images) @ axes.double() / scales).float()

        total = private.gaussian_sum(
            lambda part: by_class(outer_products(scaled(part)), part.labels, info.classes),
            for_classes,
        )
        found = [
            _of_class(symmetric(each / size), expected, _deviation(for_classes) / size, scales)
            for each, size in zip(total.view(info.classes, -1), sizes.tolist(), strict=True)
        ]
        return ClassGaussians(
            (means @ waves).float(),
            torch.stack([waves.T.float() @ axes @ own for own, _ in found]),
            torch.stack([variances for _, variances in found]),
            float(rest),
        )


def _of_class(
    covariance: Tensor, expected: Tensor, noise: float, scales: Tensor
) -> tuple[Tensor, Tensor]:
    """Return principal axes in the subspace, and variances along them, of a class.

    Only the difference between the class's noisy covariance and the expected one is denoised: where
    noise hides the difference, the class has the expected covariance.
    """
    values, vectors = denoised(covariance - expected.diag(), noise)
    covariance = expected.diag() + vectors * values @ vectors.T
    variances, axes = torch.linalg.eigh(scales[:, None] * covariance * scales)
    return axes, variances.clamp(min=0)


def low_frequencies(spec: ImageSpec, count: int) -> Tensor:
    """Return orthonormal waves of the discrete cosine transform, the lowest frequencies first.

    Args:
        spec: The shape of one image.
        count: Number of waves, shared out evenly over the channels; each gets at least one.

    Returns:
        ``(M, C * H * W)``, float32.
    """
    each = min(max(1, count // spec.channels), spec.height * spec.width)
    down, across = (torch.from_numpy(cosines(side)) for side in (spec.height, spec.width))
    row = torch.arange(spec.height)[:, None] / spec.height
    column = torch.arange(spec.width) / spec.width
    lowest = (row**2 + column**2).flatten().argsort(stable=True)[:each]
    waves = down[lowest // spec.width][:, :, None] * across[lowest % spec.width][:, None, :]
    return torch.kron(torch.eye(spec.channels), waves.flatten(1))


def outer_products(rows: Tensor) -> Tensor:
    """Return outer products of vectors with themselves: ``(N, d)`` to ``(N, d * d)``.

    The norm of each is the square of its vector's norm.
    """
    return (rows[:, :, None] * rows[:, None, :]).flatten(1)


def symmetric(mean_of_products: Tensor) -> Tensor:
    """Return the ``(d, d)`` matrix, float32, of a noisy mean of outer products, ``(d * d,)``.

    Averaging with the transpose divides the noise by sqrt(2) off the diagonal.
    """
    matrix = mean_of_products.view(math.isqrt(len(mean_of_products)), -1)
    return ((matrix + matrix.T) / 2).float()


def denoised(matrix: Tensor, deviation: float) -> tuple[Tensor, Tensor]:
    """Estimate a noisy matrix's eigenvalues without the noise, and return its eigenvectors.

    Args:
        matrix: ``(d, d)``, symmetric.
        deviation: Standard deviation of the noise on the diagonal; elsewhere the noise's is
            1 / sqrt(2) of it.

    Returns:
        Eigenvalues ``(d,)``, 0 where noise hides them, and eigenvectors ``(d, d)``, in columns.
    """
    seen, vectors = torch.linalg.eigh(matrix)
    edge = deviation * math.sqrt(2 * len(matrix))
    root = (seen**2 - edge**2).clamp(min=0).sqrt()
    return torch.where(seen.abs() > edge, seen.sign() * (seen.abs() + root) / 2, 0), vectors


def _deviation(event: GaussianEvent) -> float:
    return event.noise_multiplier * event.sensitivity
