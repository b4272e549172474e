"""DP-SynGen FineTune (Choi et al. 2024, arXiv 2412.09842).

Pre-train on programmatic images, which cost no privacy, then train all noise levels with DP-SGD.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from dpbench.api.method import Preset, RunContext, Sampler
from dpbench.privacy.mechanisms import PrivateImages

from ._syngen import CLAIMS, LAPTOP, PAPER, SMOKE, SynGen
from .diffusion.denoisers import Interval


@dataclass(frozen=True)
class DPSynGen(SynGen):
    """DP-SynGen FineTune.

    Attributes:
        pretrain_above: Pre-training covers ln sigma above this. The paper's text names the coarse
            stage (2); released configurations hold 2, -3 and all noise levels.
    """

    summary: ClassVar[str] = "pre-trained on programmatic images, then DP-SGD at all noise levels"
    presets: ClassVar[tuple[Preset, ...]] = (
        PAPER,
        *(
            replace(preset, values={**preset.values, "pretrain_above": -math.inf})
            for preset in (LAPTOP, CLAIMS)
        ),
        SMOKE,
    )

    pretrain_above: float = -3.0

    @property
    def _synthetic_interval(self) -> Interval:
        return self.pretrain_above, math.inf

    def fit(self, private: PrivateImages, run: RunContext) -> Sampler:
        """Pre-train, then train privately."""
        event = self._event(private.info, private.budget)
        denoiser = self.pretrain(private.info, run)
        self._train_privately(private, event, denoiser, run)
        return self._sampler(private, denoiser)


METHOD = DPSynGen
