"""DP-SynGen Cleaning (Choi et al. 2024, arXiv 2412.09842).

The lowest noise levels, where only local texture is left to restore, are learnt from programmatic
images alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from dpbench.api.method import Preset, RunContext, Sampler
from dpbench.privacy.mechanisms import PrivateImages

from ._syngen import CLAIMS, LAPTOP, PAPER, SMOKE, StagedSynGen
from .diffusion.denoisers import Interval


@dataclass(frozen=True)
class DPSynGenCleaning(StagedSynGen):
    """DP-SynGen Cleaning.

    Attributes:
        tau1: The cleaning stage is ln sigma below this.
    """

    summary: ClassVar[str] = "the lowest noise levels from programmatic images, the rest DP-SGD"
    presets: ClassVar[tuple[Preset, ...]] = (PAPER, LAPTOP, CLAIMS, SMOKE)

    tau1: float = -3.0

    @property
    def _synthetic_interval(self) -> Interval:
        return -math.inf, self.tau1

    def fit(self, private: PrivateImages, run: RunContext) -> Sampler:
        """Train both ranges."""
        event = self._event(private.info, private.budget)
        synthetic = self.pretrain(private.info, run)
        denoiser = self._private_start(synthetic, private.info, run)
        self._train_privately(private, event, denoiser, run, (self.tau1, math.inf))
        combined = self._combine(synthetic, denoiser, self.tau1, synthetic_is_above=False)
        return self._sampler(private, combined)


METHOD = DPSynGenCleaning
