"""Points of curves: measurements to be read together, in a CSV and a figure of their own."""

from __future__ import annotations

from dataclasses import dataclass

from dpbench.core.files import safe_name


@dataclass(frozen=True)
class Curve:
    """A family of measurements of which none says much alone.

    Attributes:
        suffix: Of the names of its files, behind that of the data set.
        points: What the names of its metrics begin with.
    """

    suffix: str
    points: tuple[str, ...]

    def figure(self, dataset: str) -> str:
        """The file of its figure, from the folder of the leaderboards on."""
        return f"figures/{safe_name(dataset)}{self.suffix}.png"


# trained on / tested on: synthetic / synthetic, synthetic / real, real / real, and again
SYNTHETIC, TRANSFER, REAL, RESEEDED = (
    f"model_selection_{kind}_" for kind in ("synthetic", "transfer", "real", "reseeded")
)
MODEL_SELECTION = Curve(".model_selection", (SYNTHETIC, TRANSFER, REAL, RESEEDED))
ON_SYNTHETIC, ENSEMBLE, ON_REAL = "scaling_cas_n", "scaling_cas_ensemble_n", "scaling_cas_real_n"
SCALING = Curve(".scaling", (ON_SYNTHETIC, ENSEMBLE, ON_REAL))
CURVES = (MODEL_SELECTION, SCALING)


def curve_of(metric: str) -> Curve | None:
    """The curve that a metric is a point of; None where it stands for itself."""
    for curve in CURVES:
        if metric.startswith(curve.points):
            return curve
    return None
