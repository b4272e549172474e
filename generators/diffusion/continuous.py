"""What DPDM and DP-SynGen have in common: continuous noise levels, and guidance."""

from __future__ import annotations

from dataclasses import dataclass

from dpbench.core.checks import check_shares
from dpbench.core.errors import UserError

from .denoisers import EVERYWHERE, PARAMETERIZATIONS, Interval, Parameterization
from .method import DiffusionMethod
from .objective import DenoisingObjective
from .samplers import SamplerSettings, SolverName


@dataclass(frozen=True)
class ContinuousDiffusion(DiffusionMethod):
    """Hyper-parameters of a diffusion model in continuous noise levels.

    Attributes:
        parameterization: ``edm`` or ``v``.
        label_dropout: Probability of training an image without its label.
        solver: ``ddim``, ``ddim-stochastic`` or ``heun``.
        churn: S_churn of ``heun``.
        churn_min: S_min of ``heun``.
        guidance: Classifier-free guidance weight w.
    """

    parameterization: str = "edm"
    label_dropout: float = 0.1
    solver: SolverName = "ddim"
    churn: float = 0.0
    churn_min: float = 0.0
    guidance: float = 0.0

    def __post_init__(self) -> None:
        """Check what can be checked without images.

        Raises:
            UserError: A value is out of its range.
        """
        super().__post_init__()
        check_shares(self, "label_dropout")
        if self.guidance and not self.label_dropout:
            raise UserError(
                "guidance needs images without label, which label_dropout = 0 never trains: "
                "--set label_dropout=0.1"
            )

    def _parameterization(self) -> Parameterization:
        if self.parameterization not in PARAMETERIZATIONS:
            raise UserError(
                f"unknown parameterization {self.parameterization!r}: "
                f"choose one of {', '.join(PARAMETERIZATIONS)}"
            )
        return PARAMETERIZATIONS[self.parameterization]

    def _sampling(self) -> SamplerSettings:
        return SamplerSettings(
            solver=self.solver,
            steps=self.sampling_steps,
            churn=self.churn,
            churn_min=self.churn_min,
            guidance=self.guidance,
        )

    def _objective(
        self, classes: int, multiplicity: int, interval: Interval = EVERYWHERE
    ) -> DenoisingObjective:
        return DenoisingObjective(
            self._parameterization(), multiplicity, classes, self.label_dropout, interval
        )
