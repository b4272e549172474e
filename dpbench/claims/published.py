"""The published claims, and the runs of ours that try them.

The one place of the harness that knows methods and metrics by name. Papers: Dockhorn et al. 2022
(DPDM, arXiv 2210.09929), Ghalebikesabi et al. 2023 (arXiv 2302.13861), Choi et al. 2024 (DP-SynGen,
arXiv 2412.09842).
"""

from __future__ import annotations

from dataclasses import replace

from dpbench.claims.arms import Arm
from dpbench.claims.rules import Claim, Measured, Paired, Reading, Trend
from dpbench.claims.values import Metric

PRIVACY = "audit"  # an evaluator of every run
FD = Metric("fd_cnn", "fidelity")
CAS = Metric("cas_mean", "cas")
_FD_FOR_FID = (
    "Fashion-MNIST; small networks whose denoised images start from a learnt centre of their "
    "class, which no paper has. The distance is fd_cnn, in features of a CNN of the data set, "
    "which stands for FID and is not FID."
)

_LOSS = (
    "Fashion-MNIST at epsilon 10, against DPDM; a loss of up to 2 points of cas_mean counts as "
    "none, and a gain is no loss."
)


# Runs of claims start from the laptop presets. These values give a network of a quarter of the size
# and a fifth of the private evaluations, so that claims can be tried with several seeds; K = 4
# takes all evaluations that the profile allows. Nothing was tuned.
_SMALL = {"channels": 16, "batch_size": 256, "steps": 40}
# What the laptop presets had when the first of these runs were made, and have otherwise today.
_SAMPLER = {"sampling_steps": 12, "solver": "ddim"}
_CENTRED = {"learning_rate": 1e-3, "centre_learning_rate": 0.004, "statistics_share": 0.0}
_DPDM_BASE = {
    **_SMALL,
    **_SAMPLER,
    "learning_rate": 1e-3,
    "sigma_min": 0.002,
    "trained_sigma_min": 0.0,
    "centre_widths": False,
    "natural_spectrum": 0.0,
}
_DDPM_BASE = {
    **_SMALL,
    **_SAMPLER,
    **_CENTRED,
    "last_time_step": 0,
    "public_classes": 0,
    "public_images": 4000,
    "public_steps": 100,
    "public_warmup_steps": 12,
}
_CLEANING_BASE = {
    **_SMALL,
    **_SAMPLER,
    "sigma_min": 0.002,
    **_CENTRED,
    "natural_spectrum": 0.0,
    "label_dropout": 0.1,
    "synthetic_classes": 0,
    "synthetic_images": 4000,
    "synthetic_steps": 100,
}
_SYNGEN_BASE = {**_CLEANING_BASE, "trained_sigma_min": 0.0}


def _dpdm(epsilon: float, **settings: object) -> Arm:
    return Arm("dpdm", epsilon, tuple(settings.items()), base=tuple(_DPDM_BASE.items()))


def _syngen(epsilon: float, **settings: object) -> Arm:
    return Arm("dpsyngen", epsilon, tuple(settings.items()), base=tuple(_SYNGEN_BASE.items()))


def _coarse(**settings: object) -> Arm:
    return Arm("dpsyngen-coarse", 10.0, tuple(settings.items()), base=tuple(_SYNGEN_BASE.items()))


def _cleaning(**settings: object) -> Arm:
    base = tuple(_CLEANING_BASE.items())
    return Arm("dpsyngen-cleaning", 10.0, tuple(settings.items()), base=base)


def _ddpm(**settings: object) -> Arm:
    return Arm("dp-ddpm", 10.0, tuple(settings.items()), base=tuple(_DDPM_BASE.items()))


FINE_TUNED = _ddpm()
# Spends on private images as many gradient evaluations as FINE_TUNED does on all images.
FROM_SCRATCH = _ddpm(public="none", steps=90)
# Claims about classifiers trained on samples can only be tried where classifiers learn something: a
# CNN reached 29% on samples of FINE_TUNED, and 9% before denoised images started from centres.
TEACHER = Arm("class-gaussian", 10.0)
_TAUGHT = (
    "Fashion-MNIST, samples of class-gaussian: from those of the paper's method at this size a CNN "
    "learns far less."
)


def _taught(evaluator: str, metric: str, minus: str | None = None) -> Reading:
    less = Metric(minus, evaluator) if minus else None
    return Reading(TEACHER, Metric(metric, evaluator), less)


def _on_laptop(reading: Reading) -> Reading:
    return replace(reading, arm=replace(reading.arm, profile="laptop", base=()))


_REALISM = Reading(FINE_TUNED, Metric("realism_share", "realism", "train"))


def _no_loss(arm: Arm) -> Paired:
    return Paired(arm, _dpdm(10.0), CAS, margin=2.0)


_DPDM = (
    Claim(
        id="noise-multiplicity",
        statement="Sample quality rises with every doubling of the noise multiplicity K.",
        source="Dockhorn et al. 2022, ablation of noise multiplicity, MNIST at epsilon 1",
        published="FID 76.9, 60.1, 57.1, 44.8, 36.9, 34.8 for K = 1, 2, 4, 8, 16, 32",
        rule=Trend((_dpdm(1.0), _dpdm(1.0, multiplicity=2), _dpdm(1.0, multiplicity=4)), FD),
        here=f"K = 1, 2, 4 at epsilon 1. {_FD_FOR_FID}",
    ),
    Claim(
        id="v-at-small-epsilon",
        statement="The v parameterization beats EDM at epsilon 0.2.",
        source="Dockhorn et al. 2022, ablation of the parameterization, MNIST at epsilon 0.2",
        published="FID 97.8 with v, 119 with EDM",
        rule=Paired(_dpdm(0.2, parameterization="v"), _dpdm(0.2), FD),
        here=_FD_FOR_FID,
    ),
    Claim(
        id="edm-at-large-epsilon",
        statement="The EDM parameterization beats v at epsilon 10.",
        source="Dockhorn et al. 2022, which uses v at epsilon 0.2 and EDM at epsilon 1 and 10",
        published="no figures of both in our sources",
        rule=Paired(_dpdm(10.0), _dpdm(10.0, parameterization="v"), FD),
        here=_FD_FOR_FID,
    ),
)
_DP_DDPM = (
    Claim(
        id="non-uniform-timesteps",
        statement="A mixture of time steps that favours the middle ones beats uniform ones.",
        source="Ghalebikesabi et al. 2023, sections 5.3 and 5.5",
        published="CIFAR-10: FID 9.8, uniform 11.6; MNIST: accuracy 98.6%, uniform 98.2%",
        rule=Paired(FINE_TUNED, _ddpm(mixture_weights=(1.0,), mixture_breakpoints=(0, 1000)), FD),
        here=f"The paper's mixture for MNIST. {_FD_FOR_FID}",
    ),
    Claim(
        id="fine-tuning",
        statement="Fine-tuning a model of public images beats training from scratch.",
        source="Ghalebikesabi et al. 2023, section 5.5",
        published="CIFAR-10: FID 9.8 fine-tuned; 97.7 from scratch, as quoted of Dockhorn et al.",
        rule=Paired(FINE_TUNED, FROM_SCRATCH, FD),
        here=(
            "At equal compute: the run from scratch takes as many gradient evaluations on private "
            f"images as the other takes in all. Public images are made by a program. {_FD_FOR_FID}"
        ),
    ),
    Claim(
        id="more-samples",
        statement="A classifier gets better the more synthetic images it is trained on.",
        source="Ghalebikesabi et al. 2023, section 5.6 and figure 3",
        published="CIFAR-10: 72.9% with 50k images, 86.0% with 1M; virtually no gain on MNIST",
        rule=Measured(
            _taught("scaling", "scaling_cas_n2500", "scaling_cas_n250"),
            0.0,
            (_on_laptop(_taught("scaling", "scaling_cas_n10000", "scaling_cas_n1000")),),
        ),
        here=f"{_TAUGHT} Ten times as many images, in the same number of steps.",
    ),
    Claim(
        id="ensembles",
        statement="An ensemble of five classifiers beats a single one.",
        source="Ghalebikesabi et al. 2023, section 5.6 and table 1",
        published="CIFAR-10: 88.0%, a single one 86.0%",
        rule=Measured(_taught("cas", "cas_cnn_ensemble", "cas_cnn"), 0.0),
        here=f"{_TAUGHT} Small CNNs that differ in the order of the minibatches alone.",
    ),
    Claim(
        id="ranks-on-synthetic-tests",
        statement="Models trained on synthetic images rank alike on synthetic and on real images.",
        source="Ghalebikesabi et al. 2023, section 6 and figure 4a",
        published="a figure without numbers: models rank similarly",
        rule=Measured(
            _taught("model-selection", "model_selection_a_spearman"),
            0.5,
            (_on_laptop(_taught("model-selection", "model_selection_a_spearman")),),
        ),
        here=f"{_TAUGHT} 12 configurations; alike means Spearman's rho above 0.5.",
    ),
    Claim(
        id="ranks-of-configurations",
        statement="Configurations rank alike on synthetic images and, trained again, on real ones.",
        source="Ghalebikesabi et al. 2023, section 6 and figure 4b",
        published="a figure without numbers: models rank similarly",
        rule=Measured(
            _taught("model-selection", "model_selection_b_spearman"),
            0.5,
            (_on_laptop(_taught("model-selection", "model_selection_b_spearman")),),
        ),
        here=f"{_TAUGHT} 12 configurations; alike means Spearman's rho above 0.5.",
    ),
    Claim(
        id="realism",
        statement="A discriminator takes most samples for private images, not for public ones.",
        source="Ghalebikesabi et al. 2023, section 5.5",
        published="92% of 50000 samples, by a discriminator that is right on 98.0% of images",
        rule=Measured(
            _REALISM,
            50.0,
            (_on_laptop(_REALISM),),
        ),
        here="Fashion-MNIST against images made by a program; most means more than half.",
    ),
)
_DP_SYNGEN = (
    Claim(
        id="syngen-at-small-epsilon",
        statement="DP-SynGen beats DPDM at epsilon 0.2.",
        source="Choi et al. 2024, MNIST at epsilon 0.2",
        published="FID 141.4, DPDM 142.8",
        rule=Paired(_syngen(0.2), _dpdm(0.2), FD),
        here=(
            "The variant FineTune; both with the same private steps, and the public ones on top. "
            f"{_FD_FOR_FID}"
        ),
    ),
    Claim(
        id="syngen-gain-with-epsilon",
        statement="What DP-SynGen gains over DPDM grows as epsilon shrinks.",
        source="Choi et al. 2024, ablations",
        published="greater improvements at lower budgets, without figures in our source",
        rule=Trend(
            (_syngen(10.0), _syngen(1.0), _syngen(0.2)), FD, (_dpdm(10.0), _dpdm(1.0), _dpdm(0.2))
        ),
        here=f"The variant FineTune at epsilon 10, 1, 0.2. {_FD_FOR_FID}",
    ),
    Claim(
        id="syngen-gain-with-multiplicity",
        statement="What DP-SynGen gains over DPDM grows as the noise multiplicity K shrinks.",
        source="Choi et al. 2024, ablations",
        published="greater improvements at lower K, without figures in our source",
        rule=Trend(
            (_syngen(1.0, multiplicity=4), _syngen(1.0)),
            FD,
            (_dpdm(1.0, multiplicity=4), _dpdm(1.0)),
        ),
        here=f"The variant FineTune at epsilon 1, K = 4 and 1. {_FD_FOR_FID}",
    ),
    Claim(
        id="coarse-stage",
        statement="Learning the coarse stage from programmatic images alone loses nothing.",
        source="Choi et al. 2024, three stages and variant Coarse",
        published="accuracy kept, without figures in our source",
        rule=_no_loss(_coarse()),
        here=_LOSS,
    ),
    Claim(
        id="cleaning-stage",
        statement="Learning the cleaning stage from programmatic images alone loses nothing.",
        source="Choi et al. 2024, three stages and variant Cleaning",
        published="accuracy kept, without figures in our source",
        rule=_no_loss(_cleaning()),
        here=_LOSS,
    ),
)
_ABLATIONS = (
    Claim(
        id="ablation-tau2",
        statement="Private images are needed below the coarse stage: lowering tau2 costs quality.",
        source="Choi et al. 2024, three stages; our reading of it",
        published="tau2 = 2, without figures of others in our source",
        rule=Trend((_coarse(tau2=0.0), _coarse(tau2=1.0), _coarse()), FD),
        here=f"tau2 = 0, 1, 2 at epsilon 10. {_FD_FOR_FID}",
    ),
    Claim(
        id="ablation-tau1",
        statement="Private images are needed above the cleaning stage: raising tau1 costs quality.",
        source="Choi et al. 2024, three stages; our reading of it",
        published="tau1 = -3, without figures of others in our source",
        rule=Trend((_cleaning(tau1=-1.0), _cleaning(tau1=-2.0), _cleaning()), FD),
        here=f"tau1 = -1, -2, -3 at epsilon 10. {_FD_FOR_FID}",
    ),
    Claim(
        id="ablation-programs",
        statement="Dead leaves teach the cleaning stage better than salt-and-pepper noise.",
        source="Choi et al. 2024, choice of dead leaves",
        published="no figures in our source",
        rule=Paired(
            _cleaning(synthetic="dead-leaves", synthetic_labels="random"),
            _cleaning(synthetic="salt-and-pepper", synthetic_labels="random"),
            FD,
        ),
        here=f"The variant Cleaning at epsilon 10. {_FD_FOR_FID}",
    ),
    Claim(
        id="ablation-diversity",
        statement="Synthetic images must be diverse: fewer of them cost quality.",
        source="Choi et al. 2024, synthetic images; our reading of it",
        published="no figures in our source",
        rule=Trend(
            (_syngen(1.0, synthetic_images=40), _syngen(1.0, synthetic_images=400), _syngen(1.0)),
            FD,
        ),
        here=f"40, 400 and 4000 images, the variant FineTune at epsilon 1. {_FD_FOR_FID}",
    ),
)
CLAIMS = (*_DPDM, *_DP_DDPM, *_DP_SYNGEN, *_ABLATIONS)
