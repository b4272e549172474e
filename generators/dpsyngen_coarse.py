"""DP-SynGen Coarse (Choi et al. 2024, arXiv 2412.09842).

The highest noise levels, where all images look alike, are learnt from programmatic images alone.
Leaving them out saves nothing per private step; the saving is that fewer steps are needed.
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
class DPSynGenCoarse(StagedSynGen):
    """DP-SynGen Coarse.

    Attributes:
        tau2: The coarse stage is ln sigma above this.
    """

    summary: ClassVar[str] = "the highest noise levels from programmatic images, the rest DP-SGD"
    presets: ClassVar[tuple[Preset, ...]] = (PAPER, LAPTOP, CLAIMS, SMOKE)

    tau2: float = 2.0

    @property
    def _synthetic_interval(self) -> Interval:
        return self.tau2, math.inf

    def fit(self, private: PrivateImages, run: RunContext) -> Sampler:
        """Train both ranges."""
        event = self._event(private.info, private.budget)
        synthetic = self.pretrain(private.info, run)
        denoiser = self._private_start(synthetic, private.info, run)
        self._train_privately(private, event, denoiser, run, (-math.inf, self.tau2))
        combined = self._combine(synthetic, denoiser, self.tau2, synthetic_is_above=True)
        return self._sampler(private, combined)


METHOD = DPSynGenCoarse
