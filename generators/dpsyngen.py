"""DP-SynGen FineTune (Choi et al. 2024, arXiv 2412.09842).

Pre-train on programmatic images, which cost no privacy, then train all noise levels with DP-SGD.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from dpbench.api.method import Preset

from ._syngen import Stages, SynGen, syngen_presets


@dataclass(frozen=True)
class DPSynGen(SynGen):
    """DP-SynGen FineTune; other fields as in ``SynGen``.

    Attributes:
        pretrain_above: Pre-training covers ln sigma above this. The paper's text names the coarse
            stage (2); released configurations hold 2, -3 and all noise levels.
    """

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "pre-trained on programmatic images, then DP-SGD at all noise levels"
    paper: ClassVar[str] = "Choi et al. 2024, arXiv 2412.09842"
    requires: ClassVar[str] = "programmatic images, which it makes"
    presets: ClassVar[tuple[Preset, ...]] = syngen_presets(pretrain_above=-math.inf)

    pretrain_above: float = -3.0

    @property
    def stages(self) -> Stages:
        """Programmatic images first train the levels that private images then train further."""
        return Stages(synthetic=(self.pretrain_above, math.inf))


METHOD = DPSynGen
