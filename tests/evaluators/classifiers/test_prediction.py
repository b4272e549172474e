from __future__ import annotations

import torch

from dpbench.evaluators.classifiers.prediction import ensemble_prediction


def test_probabilities_are_averaged_and_not_logits_or_votes() -> None:
    sure, unsure = torch.tensor([[9.0, 0.0, -9.0]]), torch.tensor([[0.0, 0.3, 0.0]])
    assert ensemble_prediction([unsure, unsure, sure]).tolist() == [0]
    far = torch.tensor([[0.0, 0.0, 50.0]])
    assert ensemble_prediction([sure, sure, far]).tolist() == [0], "logits would give 2"
