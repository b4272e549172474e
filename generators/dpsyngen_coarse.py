"""DP-SynGen Coarse (Choi et al. 2024, arXiv 2412.09842).

The highest noise levels, where all images look alike, are learnt from programmatic images alone.
Leaving them out saves nothing per private step; the saving is that fewer steps are needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from dpbench.api.method import Preset

from ._syngen import Stages, SynGen, syngen_presets


@dataclass(frozen=True)
class DPSynGenCoarse(SynGen):
    """DP-SynGen Coarse; other fields as in ``SynGen``.

    Attributes:
        experts: Two networks, one for each range, switched on sigma when sampling. Otherwise one
            network is trained on programmatic images and then on private ones, each in its range.
            The paper does not say which; experts cannot unlearn each other's range.
        tau2: The coarse stage is ln sigma above this.
    """

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "the highest noise levels from programmatic images, the rest DP-SGD"
    paper: ClassVar[str] = "Choi et al. 2024, arXiv 2412.09842"
    requires: ClassVar[str] = "programmatic images, which it makes"
    presets: ClassVar[tuple[Preset, ...]] = syngen_presets()

    experts: bool = True
    tau2: float = 2.0

    @property
    def stages(self) -> Stages:
        """Programmatic images train the coarse stage, private ones the rest."""
        return Stages(
            synthetic=(self.tau2, math.inf), private=(-math.inf, self.tau2), experts=self.experts
        )


METHOD = DPSynGenCoarse
