"""A normal distribution of images for each class, from three noisy sums.

First the means of the classes; then the covariance that all classes have in common, which gives a
subspace and its scales; then the covariance of each class in it. Each release makes the next one
cheap: what is centred, projected and scaled has a small norm, and a small norm needs little noise.

What noise adds to the eigenvalues of a symmetric matrix is known: they spread to a semicircle of
radius ``edge``, and an eigenvalue l above it is seen at l + edge^2 / (4 l) (Benaych-Georges and
Nadakuditi 2011, arXiv 0910.2120, section 3.1). So what is seen within the edge counts as nothing,
and what is seen above it is put back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.fft import dctn
from torch import Tensor

from dpbench.errors import UserError
from dpbench.privacy.accounting import GaussianEvent, calibrated
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.private_images import PrivateImages
from dpbench.types import Images, ImageSpec

# The common subspace is scaled by its variances to minus this power before classes are told apart:
# 0 is noise that is alike in all directions, 0.5 noise in proportion to what varies along each
WHITENING = 0.25
# a variance of intensities, or a share of the largest, that is as good as none
_NEGLIGIBLE = 1e-6


@dataclass(frozen=True)
class ClassGaussians:
    """A normal distribution of images, intensities in [0, 1], for each class.

    Attributes:
        means: ``(classes, D)``, float32; D = C * H * W.
        axes: ``(classes, D, R)``: orthonormal principal axes.
        variances: ``(classes, R)``: along them, not below 0.
        rest: Variance of a pixel off the axes, the mean of all classes; not below 0.
    """

    means: Tensor
    axes: Tensor
    variances: Tensor
    rest: float

    def draw(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Draw an image along the axes for each label.

        Args:
            labels: ``(N,)``, int64.
            rng: On the device to compute on.

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

    Attributes:
        frequencies: Coefficients of an image that are looked at: those of its discrete cosine
            transform with the lowest frequencies, shared out evenly over the channels.
        rank: Largest dimension of the common subspace.
        mean_norm: Clipping norm of an image, intensities in [0, 1].
        spread_norm: Clipping norm of an image less the mean of its class.
        class_norm: Clipping norm of the same in the subspace, scaled to an expected square of 1.
        mean_share: What the means cost of the whole, in inverse squares of noise multipliers.
        common_share: What the common covariance costs; the classes' covariances get what is left.
    """

    frequencies: int = 196
    rank: int = 100
    mean_norm: float = 16.0
    spread_norm: float = 6.0
    class_norm: float = 1.2
    mean_share: float = 0.1
    common_share: float = 0.2

    def __post_init__(self) -> None:
        """Check what can be checked without images.

        Raises:
            UserError: A value is out of its range.
        """
        for name in ("frequencies", "rank"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("mean_norm", "spread_norm", "class_norm", "mean_share", "common_share"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} must be above 0 and finite, got {getattr(self, name)}")
        if self.mean_share + self.common_share >= 1:
            raise UserError(
                "mean_share and common_share must add up to less than 1, got "
                f"{self.mean_share:g} and {self.common_share:g}"
            )

    def events(self, budget: PrivacyBudget) -> tuple[GaussianEvent, ...]:
        """The three releases, which spend the budget together."""
        whole = calibrated(GaussianEvent(1.0, 1.0, "class moments"), budget).noise_multiplier
        means = GaussianEvent(whole / math.sqrt(self.mean_share), self.mean_norm, "class means")
        common = GaussianEvent(
            whole / math.sqrt(self.common_share), self.spread_norm**2, "common covariance"
        )
        covariances = GaussianEvent(1.0, self.class_norm**2, "class covariances")
        return means, common, calibrated(covariances, budget, (means, common))

    def release(self, private: PrivateImages, events: Sequence[GaussianEvent]) -> ClassGaussians:
        """Release the moments; spends what ``self.events`` gave.

        The true class sizes are private; that classes are of equal size is assumed.
        """
        info = private.info
        for_means, for_common, for_classes = events
        waves = low_frequencies(info.spec, self.frequencies)
        class_size = info.nominal_size / info.classes

        def by_class(rows: Tensor, images: Images) -> Tensor:
            places = rows.new_zeros(len(rows), info.classes, rows.shape[1])
            places[torch.arange(len(rows)), images.labels] = rows
            return places.flatten(1)

        def coefficients(images: Images) -> Tensor:
            return images.pixels.flatten(1).float() / 255 @ waves.T

        total = private.gaussian_sum(lambda part: by_class(coefficients(part), part), for_means)
        means = total.view(info.classes, len(waves)) / class_size

        def centred(images: Images) -> Tensor:
            return coefficients(images) - means[images.labels]

        total = private.gaussian_sum(lambda part: outer_products(centred(part)), for_common)
        common, noise = total / info.nominal_size, _deviation(for_common) / info.nominal_size
        variances, axes = denoised(symmetric(common, len(waves)), noise)
        rest = (symmetric(common, len(waves)).trace() - variances.clamp(min=0).sum()).clamp(min=0)
        count = int((variances > _NEGLIGIBLE * max(float(variances.max()), _NEGLIGIBLE)).sum())
        # one axis at least, so that the shape of what follows does not depend on the noise
        kept = variances.argsort(descending=True)[: max(1, min(self.rank, count))]
        variances, axes = variances[kept].clamp(min=_NEGLIGIBLE), axes[:, kept]

        # what is expected of a class in the scaled subspace, with trace 1
        expected = variances ** (1 - 2 * WHITENING)
        size = expected.sum()
        scales = variances**WHITENING * size.sqrt()
        expected = expected / size

        def scaled(images: Images) -> Tensor:
            return centred(images) @ axes / scales

        total = private.gaussian_sum(
            lambda part: by_class(outer_products(scaled(part)), part), for_classes
        )
        noise = _deviation(for_classes) / class_size
        of_classes = [
            _class_axes(symmetric(each, len(kept)), expected, noise, scales)
            for each in (total / class_size).view(info.classes, -1)
        ]
        return ClassGaussians(
            means @ waves,
            torch.stack([waves.T @ axes @ own for own, _ in of_classes]),
            torch.stack([variances for _, variances in of_classes]),
            float(rest) / waves.shape[1],
        )


def _class_axes(
    covariance: Tensor, expected: Tensor, noise: float, scales: Tensor
) -> tuple[Tensor, Tensor]:
    """Principal axes in the subspace, and variances along them, of a class's noisy covariance.

    What the class differs in from what is expected is denoised, so that without any signal the
    classes have one covariance.
    """
    values, vectors = denoised(covariance - expected.diag(), noise)
    covariance = expected.diag() + vectors * values @ vectors.T
    variances, axes = torch.linalg.eigh(scales[:, None] * covariance * scales)
    return axes, variances.clamp(min=0)


def low_frequencies(spec: ImageSpec, count: int) -> Tensor:
    """Orthonormal waves of the discrete cosine transform, the lowest frequencies first.

    Args:
        spec: The shape of one image.
        count: How many, shared out evenly over the channels: at least one and at most all for
            each.

    Returns:
        ``(M, C * H * W)``, float32.
    """
    each = min(max(1, count // spec.channels), spec.height * spec.width)
    pixels = torch.eye(spec.height * spec.width).view(-1, spec.height, spec.width)
    waves = torch.from_numpy(dctn(pixels.numpy(), axes=(1, 2), norm="ortho")).flatten(1).T
    rows = torch.arange(spec.height)[:, None] / spec.height
    columns = torch.arange(spec.width) / spec.width
    lowest = (rows**2 + columns**2).flatten().argsort(stable=True)[:each]
    return torch.kron(torch.eye(spec.channels), waves[lowest])


def outer_products(rows: Tensor) -> Tensor:
    """Outer products of vectors with themselves: ``(N, d)`` to ``(N, d * d)``.

    The norm of one is the square of its vector's.
    """
    return (rows[:, :, None] * rows[:, None, :]).flatten(1)


def symmetric(sum_of_products: Tensor, size: int) -> Tensor:
    """The ``(size, size)`` matrix of a noisy sum of outer products.

    Noise that is alike on all entries is smaller by sqrt(2) off the diagonal afterwards.
    """
    matrix = sum_of_products.view(size, size)
    return (matrix + matrix.T) / 2


def denoised(matrix: Tensor, deviation: float) -> tuple[Tensor, Tensor]:
    """Eigenvalues, with the noise's part taken out, and eigenvectors of a noisy matrix.

    Args:
        matrix: ``(d, d)``, symmetric.
        deviation: Standard deviation of the noise on its diagonal; off it, it is 1 / sqrt(2) of
            that.

    Returns:
        ``(d,)``, rising, 0 for what the noise hides, and ``(d, d)`` with a vector in each column.
    """
    values, vectors = torch.linalg.eigh(matrix)
    edge = deviation * math.sqrt(2 * len(matrix))
    root = (values**2 - edge**2).clamp(min=0).sqrt()
    seen = values.sign() * (values.abs() + root) / 2
    return torch.where(values.abs() > edge, seen, 0), vectors


def _deviation(event: GaussianEvent) -> float:
    return event.noise_multiplier * event.sensitivity
