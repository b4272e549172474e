"""DP-SynGen Cleaning (Choi et al. 2024, arXiv 2412.09842).

The lowest noise levels, where only local texture is left to restore, are learnt from programmatic
images alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from dpbench.api.method import Preset

from ._syngen import Stages, SynGen, syngen_presets


@dataclass(frozen=True)
class DPSynGenCleaning(SynGen):
    """DP-SynGen Cleaning; other fields as in ``SynGen``.

    Attributes:
        experts: Two networks, one for each range, switched on sigma when sampling. Otherwise one
            network is trained on programmatic images and then on private ones, each in its range.
            The paper does not say which; experts cannot unlearn each other's range.
        tau1: The cleaning stage is ln sigma below this.
    """

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "the lowest noise levels from programmatic images, the rest DP-SGD"
    paper: ClassVar[str] = "Choi et al. 2024, arXiv 2412.09842"
    requires: ClassVar[str] = "programmatic images, which it makes"
    # sampling ends below tau1: the cleaning stage would not take part otherwise
    presets: ClassVar[tuple[Preset, ...]] = syngen_presets(sigma_min=0.01, trained_sigma_min=0.0)

    experts: bool = True
    tau1: float = -3.0

    @property
    def stages(self) -> Stages:
        """Programmatic images train the cleaning stage, private ones the rest."""
        return Stages(
            synthetic=(-math.inf, self.tau1), private=(self.tau1, math.inf), experts=self.experts
        )


METHOD = DPSynGenCleaning
