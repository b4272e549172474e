from __future__ import annotations

import resource
import sys
from types import SimpleNamespace

import pytest
import torch

from dpbench.parallel.device import peak_memory_mb


@pytest.mark.parametrize(("platform", "peak"), [("linux", 3 * 2**10), ("darwin", 3 * 2**20)])
def test_the_peak_of_memory_is_in_mebibytes_on_every_system(
    platform: str, peak: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=peak))
    assert peak_memory_mb(torch.device("cpu")) == 3
