from __future__ import annotations

import cleanfid.fid
import numpy as np
import pytest
import scipy.linalg
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from dpbench.evaluators.distances.frechet import frechet_at_infinity, frechet_distance, gaussian
from tests.support.features import correlated


def distance(first: np.ndarray, second: np.ndarray) -> float:
    a, b = gaussian(first), gaussian(second)
    return frechet_distance(a.mean, a.covariance, b.mean, b.covariance)


def test_distance_of_diagonal_gaussians_has_a_closed_form() -> None:
    rng = np.random.default_rng(0)
    mu1, mu2 = rng.normal(size=(2, 50))
    sd1, sd2 = rng.exponential(size=(2, 50))
    expected = ((mu1 - mu2) ** 2).sum() + ((sd1 - sd2) ** 2).sum()
    found = frechet_distance(mu1, np.diag(sd1**2), mu2, np.diag(sd2**2))
    assert found == pytest.approx(expected, rel=1e-10)


def test_distance_is_that_of_the_general_matrix_root() -> None:
    first, second = correlated(1), correlated(2)
    a, b = gaussian(first), gaussian(second)
    root = np.real(scipy.linalg.sqrtm(a.covariance @ b.covariance))
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance - 2 * root)
    assert distance(first, second) == pytest.approx(expected, rel=1e-6)


def test_distance_is_that_of_torch_fidelity() -> None:
    first, second = correlated(1), correlated(2)
    statistics = [fid_features_to_statistics(torch.from_numpy(x)) for x in (first, second)]
    expected = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert distance(first, second) == pytest.approx(expected, rel=1e-6)


@pytest.mark.usefixtures("clean_fid_with_this_scipy")
def test_distance_is_that_of_clean_fid() -> None:
    first, second = correlated(1), correlated(2)
    expected = cleanfid.fid.fid_from_feats(first, second)
    assert distance(first, second) == pytest.approx(expected, rel=1e-6)


def test_distance_is_symmetric() -> None:
    first, second = correlated(1), correlated(2)
    assert distance(first, second) == pytest.approx(distance(second, first), rel=1e-7)


def test_singular_covariances_have_a_distance() -> None:
    few = correlated(3, count=20, dimension=150)
    scale = np.trace(gaussian(few).covariance)
    assert distance(few, few) < 1e-10 * scale
    assert distance(few, few + 1) == pytest.approx(150, rel=1e-5)
    constant = np.zeros((20, 150), "f4")
    assert distance(few, constant) == pytest.approx(
        scale + (few.mean(0, dtype="f8") ** 2).sum(), rel=1e-6
    )


def test_distance_at_infinity_has_lost_the_bias_of_few_images() -> None:
    rng = np.random.default_rng(0)
    reference = gaussian(rng.normal(size=(200_000, 8)))
    draws = [rng.normal(size=(500, 8)) for _ in range(30)]
    moments = [gaussian(features) for features in draws]
    biased = [
        frechet_distance(few.mean, few.covariance, reference.mean, reference.covariance)
        for few in moments
    ]
    at_infinity = [frechet_at_infinity(features, reference, rng) for features in draws]
    assert abs(np.mean(at_infinity)) < np.mean(biased) / 5
    shifted = frechet_at_infinity(draws[0] + 1, reference, rng)
    assert shifted == pytest.approx(8, rel=0.1)
