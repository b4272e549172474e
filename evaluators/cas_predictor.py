"""Accuracy of a classifier that the method trained on private images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dpbench.api.evaluator import EvaluationContext, Need
from dpbench.core.metrics import Measurement, MetricSpec


@dataclass(frozen=True)
class CasPredictor:
    """Tests the method's own classifier on the real test split: the papers' "non-synth" column.

    CAS of synthetic images is compared with it. Methods that draw images have no such classifier,
    so their runs have no row of this metric. The predicted class of every test image is kept, as by
    ``cas``, for intervals and comparisons.
    """

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "accuracy on real test images of a classifier trained with privacy"
    metrics: ClassVar[tuple[MetricSpec, ...]] = (
        MetricSpec("cas_predictor", "%", True, "test accuracy of the method's own classifier"),
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PREDICTOR, Need.REAL_TEST})

    def evaluate(self, case: EvaluationContext) -> list[Measurement]:
        """Measure the accuracy on the test split."""
        assert case.predictor is not None
        test = case.open_real(Need.REAL_TEST)
        predicted = case.predictor.predict(test.pixels).argmax(1)
        case.keep(
            {
                name: labels.numpy().astype(np.int16)
                for name, labels in {"labels": test.labels, "cas_predictor": predicted}.items()
            }
        )
        correct = predicted == test.labels
        return [
            Measurement(
                "cas_predictor",
                100 * correct.double().mean().item(),
                unit="%",
                higher_is_better=True,
                n=0,
                split=Need.REAL_TEST.value,
                n_real=len(test),
            )
        ]


EVALUATOR = CasPredictor
