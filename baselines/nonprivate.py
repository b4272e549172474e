"""DPDM without clipping and noise: what its network and the compute of its profile can give."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from dpbench.api.method import Departure, Plan, Preset, RunContext, Sampler
from dpbench.generators.diffusion.presets import SAMPLED_ONLY, laptop, smoke
from dpbench.generators.diffusion.training import PublicTraining
from dpbench.generators.dpdm import DPDM
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo


@dataclass(frozen=True)
class NonPrivate(DPDM):  # type: ignore[misc]  # the type checker cannot follow the import
    """DPDM trained with plain Adam; fields as in ``DPDM``.

    Its gradient evaluations count as private ones. A batch has exactly ``batch_size`` images,
    drawn with replacement.
    """

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "DPDM without clipping and noise: not private"
    paper: ClassVar[str] = ""
    private: ClassVar[bool] = False
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset(
            "paper",
            "training and sampler of DPDM's preset for Fashion-MNIST at epsilon = 10, without "
            "clipping and noise; no paper states this",
            {"solver": "heun", "sampling_steps": 1000, "churn": 10.0, "churn_min": 0.1},
        ),
        laptop(
            "all of the profile's private evaluations, in small batches because there is no noise "
            "to drown; nothing was tuned",
            **SAMPLED_ONLY,
            batch_size=128,
            steps=1953,
            average_decay=0.999,
        ),
        smoke(),
    )
    departures: ClassVar[tuple[Departure, ...]] = ()  # there is no paper to depart from

    # no hyper-parameters of this method
    clipping_norm: float = field(default=1.0, init=False)

    def _plain(self) -> PublicTraining:
        return PublicTraining(
            name="images",
            label="training without privacy",
            steps=self.steps,
            batch_size=self.batch_size,
            multiplicity=self.multiplicity,
            learning_rate=self.learning_rate,
        )

    def plan(self, info: PrivateSetInfo, budget: PrivacyBudget) -> Plan:
        """One stage on the images themselves."""
        model = self.model()
        return Plan(
            parameters=model.parameters(info),
            stages=(self._plain().stage(model, info, private=True),),
            sampling=model.sampling_probe(info),
        )

    def fit(self, private: PrivateImages, run: RunContext) -> Sampler:
        """Train the denoiser.

        Raises:
            UserError: The budget is finite.
        """
        images = private.unprotected()
        info, model, training = private.info, self.model(), self._plain()
        denoiser = model.denoiser(info, run.streams, "denoiser").to(run.device)
        training.train(
            model,
            denoiser,
            images=lambda: images,
            streams=run.streams,
            stage=run.stage(training.name, training.label),
            classes=info.classes,
        )
        sampler: Sampler = model.sampler(info, denoiser)
        return sampler


METHOD = NonPrivate
