"""A classifier trained on the private images with DP-SGD (De et al. 2022, arXiv 2204.13650).

It draws no images: its accuracy is the papers' "non-synth" column, a bar for synthetic images.

The paper preset is table 5 of Ghalebikesabi et al. 2023 (arXiv 2302.13861), for MNIST at epsilon =
10. It states a noise multiplier of 3.0 and training until the budget is spent, but no number of
steps: 448 is our own arithmetic, the most that 3.0 allows at delta = 1e-5 with 60000 images, by
dp-accounting's PLD under add/remove. The noise multiplier is calibrated to the budget at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from dpbench.api.method import Plan, PlannedStage, Predictor, Preset, RunContext, Workload
from dpbench.core.checks import check_counts, check_positive, check_shares
from dpbench.core.errors import UserError
from dpbench.core.images import ImageSpec, Precision
from dpbench.core.pixels import from_pixels
from dpbench.core.state import State
from dpbench.core.streams import Streams, initialised
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.clipping import Objective
from dpbench.privacy.dpsgd import Learner
from dpbench.privacy.events import DPSGDEvent
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo
from dpbench.privacy.throughput import private_speed
from dpbench.training.averaging import ExponentialAverage

from ._classification import Classification
from ._networks import NETWORKS, InBfloat16, tanh_cnn

OBJECTIVE = Classification(multiplicity=1, mirror=False)
# Changes speed only.
PREDICTION_BATCH = 1000


@dataclass(frozen=True)
class NetworkPredictor:
    """Predicts with a trained network.

    Attributes:
        network: Maps ``(B, C, H, W)``, float32 in [-1, 1], to ``(B, classes)`` logits.
    """

    network: nn.Module

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Classify images, as ``Predictor``."""
        device = next(self.network.parameters()).device
        parts = (
            images[start : start + PREDICTION_BATCH].to(device)
            for start in range(0, len(images), PREDICTION_BATCH)
        )
        return torch.cat([self.network(from_pixels(part)).float().cpu() for part in parts])

    def state(self) -> State:
        """The network's weights."""
        return self.network.state_dict()


def _bench_cnn(multiplicity: int, precision: Precision) -> tuple[nn.Module, Objective]:
    model = initialised(tanh_cnn, ImageSpec(1, 28, 28), 10, seed=0)
    objective = Classification(multiplicity, mirror=True)
    return (InBfloat16(model) if precision == "bfloat16" else model), objective


@dataclass(frozen=True)
class DPClassifier:
    """A classifier trained with DP-SGD, without augmentation.

    Attributes:
        network: ``wrn-16-4``, ``wrn-40-4`` or ``cnn``.
        batch_size: Expected size of a Poisson batch, images.
        steps: DP-SGD steps.
        learning_rate: SGD's, without momentum.
        clipping_norm: C.
        average_decay: Decay of the weights' exponential moving average.
    """

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "a classifier trained on the real images with DP-SGD; draws no images"
    paper: ClassVar[str] = "De et al. 2022, arXiv 2204.13650"
    private: ClassVar[bool] = True
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset(
            "paper",
            "Ghalebikesabi et al. 2023, table 5 (MNIST, epsilon = 10); the number of steps is "
            "derived from its noise multiplier",
        ),
        Preset(
            "laptop",
            "sized for two CPU cores: another network, fewer steps",
            {"network": "cnn", "batch_size": 2048, "steps": 122, "learning_rate": 4.0},
        ),
        Preset(
            "smoke",
            "the smallest that runs",
            {"network": "cnn", "batch_size": 128, "steps": 20, "learning_rate": 1.0},
        ),
    )
    workloads: ClassVar[tuple[Workload, ...]] = (
        Workload(
            "cnn",
            "a small classifier, 28x28 grey (Papernot et al. 2021, table 1)",
            ImageSpec(1, 28, 28),
            10,
            _bench_cnn,
        ),
    )

    network: str = "wrn-16-4"
    batch_size: int = 16_384
    steps: int = 448
    learning_rate: float = 4.0
    clipping_norm: float = 1.0
    average_decay: float = 0.9999

    def __post_init__(self) -> None:
        """Check what can be checked without images.

        Raises:
            UserError: A value is out of its range.
        """
        if self.network not in NETWORKS:
            raise UserError(
                f"unknown network {self.network!r}: choose one of {', '.join(NETWORKS)}"
            )
        check_counts(self, "batch_size", "steps")
        check_positive(self, "learning_rate", "clipping_norm")
        check_shares(self, "average_decay")

    def plan(self, info: PrivateSetInfo, budget: PrivacyBudget) -> Plan:
        """One private stage."""
        with torch.device("meta"):
            network = NETWORKS[self.network](info.spec, info.classes)
        stage = PlannedStage(
            "private training",
            self.steps,
            self.steps * self.batch_size,
            private=True,
            probe=lambda device: private_speed(
                self._classifier(info, Streams(0)).to(device), OBJECTIVE, info, self.clipping_norm
            ),
        )
        return Plan(
            stages=(stage,),
            events=(self._event(info, budget),),
            parameters=sum(p.numel() for p in network.parameters()),
        )

    def _classifier(self, info: PrivateSetInfo, streams: Streams) -> nn.Module:
        seed = streams.seed("initial", "classifier")
        return initialised(NETWORKS[self.network], info.spec, info.classes, seed=seed)

    def _event(self, info: PrivateSetInfo, budget: PrivacyBudget) -> DPSGDEvent:
        return info.training(
            budget, self.batch_size, self.steps, self.clipping_norm, "classifier weights"
        )

    def fit(self, private: PrivateImages, run: RunContext) -> Predictor:
        """Train the classifier and keep its averaged weights."""
        info = private.info
        network = self._classifier(info, run.streams).to(run.device)
        learner = Learner(
            network,
            torch.optim.SGD(network.parameters(), lr=self.learning_rate),
            ExponentialAverage(network, self.average_decay),
        )
        event = self._event(info, private.budget)
        private.dp_sgd(learner, OBJECTIVE, event, run.stage("private", "private training"))
        learner.average.copy_to(network)
        return NetworkPredictor(network)

    def restore(self, state: State, info: PrivateSetInfo, device: torch.device) -> Predictor:
        """Rebuild the network."""
        network = self._classifier(info, Streams(0)).to(device)
        network.load_state_dict(state)
        return NetworkPredictor(network)


METHOD = DPClassifier
