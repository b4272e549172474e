"""DPDM without clipping and noise: what its network and the compute of its profile can give."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from dpbench.api.method import Plan, PlannedStage, Preset, RunContext, Sampler

# the type checker knows the generators by another name
from dpbench.generators.diffusion.continuous import (  # type: ignore[import-not-found]
    ContinuousDiffusion,
)
from dpbench.generators.diffusion.method import (  # type: ignore[import-not-found]
    CLAIMS_TRAINING,
    LAPTOP_TRAINING,
    SMOKE_TRAINING,
)
from dpbench.generators.diffusion.training import (  # type: ignore[import-not-found]
    train_public,
)
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo

_STAGE = "training without privacy"


@dataclass(frozen=True)
class NonPrivate(ContinuousDiffusion):  # type: ignore[misc]
    """DPDM trained with plain Adam; fields as in ``ContinuousDiffusion``.

    Its gradient evaluations count as private ones. A batch has exactly ``batch_size`` images,
    drawn with replacement.
    """

    summary: ClassVar[str] = "DPDM without clipping and noise: not private"
    private: ClassVar[bool] = False
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset(
            "paper",
            "training and sampler of DPDM's preset for Fashion-MNIST at epsilon = 10, without "
            "clipping and noise; no paper states this",
            {"solver": "heun", "sampling_steps": 1000, "churn": 10.0, "churn_min": 0.1},
        ),
        Preset(
            "laptop",
            "DPDM's laptop network without centres and all of the profile's private evaluations, "
            "in small batches because there is no noise to drown; nothing was tuned",
            {
                **{n: value for n, value in LAPTOP_TRAINING.items() if n != "clipping_norm"},
                "batch_size": 128,
                "steps": 1953,
                "average_decay": 0.999,
            },
        ),
        Preset(
            "claims",
            "as laptop, with DPDM's network of this profile, without centres, and the private "
            "evaluations of this profile",
            {
                **{n: value for n, value in CLAIMS_TRAINING.items() if n != "clipping_norm"},
                "batch_size": 128,
                "steps": 320,
                "average_decay": 0.99,
            },
        ),
        Preset("smoke", "the smallest that runs", SMOKE_TRAINING),
    )

    clipping_norm: float = field(default=1.0, init=False)  # no hyper-parameter of this method

    def plan(self, info: PrivateSetInfo, budget: PrivacyBudget) -> Plan:
        """One stage on the images themselves."""
        self._network().check(info.spec)
        stage = PlannedStage(
            _STAGE,
            self.steps,
            self.steps * self.batch_size * self.multiplicity,
            private=True,
            probe=lambda device: self._public_speed(info, self.batch_size, device),
        )
        return Plan(stages=(stage,), parameters=self._parameters(info))

    def fit(self, private: PrivateImages, run: RunContext) -> Sampler:
        """Train the denoiser.

        Raises:
            UserError: The budget is finite.
        """
        images = private.unprotected()
        denoiser = self._denoiser(private.info, run.streams, "denoiser").to(run.device)
        learner = self._learner(denoiser, self.learning_rate)
        train_public(
            lambda: images,
            learner,
            self._objective(private.info.classes, self.multiplicity),
            self.steps,
            self.batch_size,
            run.streams,
            "images",
            run.stage("images", _STAGE),
        )
        learner.average.copy_to(denoiser)
        sampler: Sampler = self._sampler(private, denoiser)
        return sampler


METHOD = NonPrivate
