"""The metrics that reports treat specially, by name.

Records do not say which metrics are headlines or points of curves, and a report must not need the
evaluator that measured them. So they are named here, once, and a test compares the names with what
the evaluators declare.
"""

from __future__ import annotations

from dataclasses import dataclass

from dpbench.core.files import safe_name

# columns of the overview, against real test images
HEADLINES = ("cas_logreg", "cas_mlp", "cas_cnn", "cas_predictor", "fid", "fd_cnn")
BEST_FIRST = "cas_cnn"
# what audits find: a lower bound of epsilon, and the interval of actual over claimed noise
AUDIT_EPSILON = "audit_epsilon_lower"
AUDIT_NOISE_LOW, AUDIT_NOISE_HIGH = "audit_sigma_ratio_low", "audit_sigma_ratio_high"


@dataclass(frozen=True)
class Curve:
    """Metrics that are read together, as a curve: they have a CSV and a figure of their own.

    Attributes:
        suffix: Ends the names of its files, after the data set's name.
        prefixes: Beginnings of the names of its metrics.
    """

    suffix: str
    prefixes: tuple[str, ...]

    @property
    def title(self) -> str:
        """Its name in words."""
        return self.suffix[1:].replace("_", " ")

    def figure(self, dataset: str) -> str:
        """Path of its figure, relative to the leaderboards' folder."""
        return f"figures/{safe_name(dataset)}{self.suffix}.png"


# trained on / tested on: synthetic / synthetic, synthetic / real, real / real, and real / real
# again with other seeds; the rest of a metric's name is the configuration
SYNTHETIC, TRANSFER, REAL, RESEEDED = (
    f"model_selection_{kind}_" for kind in ("synthetic", "transfer", "real", "reseeded")
)
MODEL_SELECTION = Curve(".model_selection", (SYNTHETIC, TRANSFER, REAL, RESEEDED))
# rank correlations of the two accuracies that a configuration has in each setting
SPEARMAN_A, SPEARMAN_B = "model_selection_a_spearman", "model_selection_b_spearman"
# the rest of a metric's name is the number of images trained on
ON_SYNTHETIC, ENSEMBLE, ON_REAL = "scaling_cas_n", "scaling_cas_ensemble_n", "scaling_cas_real_n"
SCALING = Curve(".scaling", (ON_SYNTHETIC, ENSEMBLE, ON_REAL))
CURVES = (MODEL_SELECTION, SCALING)


def curve_of(metric: str) -> Curve | None:
    """Return the curve that a metric is a point of; None for a metric that stands alone."""
    for curve in CURVES:
        if metric.startswith(curve.prefixes):
            return curve
    return None
