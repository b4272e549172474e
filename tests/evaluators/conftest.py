from __future__ import annotations

from types import SimpleNamespace

import cleanfid.fid
import numpy as np
import pytest
import scipy.linalg


@pytest.fixture(autouse=True)
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DPBENCH_INCEPTION", raising=False)
    monkeypatch.delenv("DPBENCH_DINOV2", raising=False)


@pytest.fixture
def clean_fid_with_this_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    """``sqrtm(..., disp=False)`` no longer gives the pair that clean-fid takes apart."""

    def sqrtm(matrix: np.ndarray, disp: bool = True) -> object:
        root = scipy.linalg.sqrtm(matrix)
        return root if disp else (root, 0.0)

    monkeypatch.setattr(cleanfid.fid, "linalg", SimpleNamespace(sqrtm=sqrtm))
