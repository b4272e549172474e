from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_fidelity.metric_prc import prc_features_to_metric

from dpbench.evaluators.distances import prdc as prdc_module
from dpbench.evaluators.distances.prdc import Prdc, prdc, squared_radii
from tests.support.features import correlated


def shares(real: np.ndarray, synthetic: np.ndarray, k: int = 5) -> Prdc:
    return prdc(real, squared_radii(real, k), synthetic, squared_radii(synthetic, k), k)


def test_precision_and_recall_are_those_of_torch_fidelity_in_any_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, synthetic = correlated(1, 300), correlated(1, 700)[300:] * np.float32(1.2)
    monkeypatch.setattr(prdc_module, "CHUNK_DISTANCES", 7 * 400)
    found = shares(real, synthetic)
    expected = prc_features_to_metric(
        torch.from_numpy(synthetic), torch.from_numpy(real), prc_neighborhood=5, verbose=False
    )
    assert found.precision == pytest.approx(expected["precision"], rel=1e-6)
    assert found.recall == pytest.approx(expected["recall"], rel=1e-6)
    assert 0.1 < found.precision < 0.95 and 0.1 < found.recall < 0.95


def test_density_and_coverage_are_those_of_their_definition() -> None:
    real, synthetic = correlated(1, 300), correlated(1, 700)[300:] * np.float32(1.2)
    radii = np.sort(np.linalg.norm(real[:, None] - real, axis=-1))[:, 5]
    inside = np.linalg.norm(real[:, None] - synthetic, axis=-1) < radii[:, None]
    found = shares(real, synthetic)
    assert found.density == pytest.approx(inside.sum(0).mean() / 5, rel=1e-6)
    assert found.coverage == pytest.approx(inside.any(1).mean(), rel=1e-6)


def test_collapse_costs_recall_and_coverage_and_no_precision() -> None:
    real = correlated(1, 300)
    collapsed = real[:1] + 1e-3 * correlated(2, 300)
    found = shares(real, collapsed)
    assert found.precision > 0.9
    assert found.recall < 0.1
    assert found.coverage < 0.1
