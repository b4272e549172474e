from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dpbench.core.images import ImageSpec
from dpbench.evaluators.classifiers.networks import logistic_regression, mlp, small_cnn
from dpbench.evaluators.classifiers.prediction import accuracy, predict
from dpbench.evaluators.classifiers.recipe import Recipe, Sgd
from dpbench.evaluators.classifiers.training import make_optimizer, train
from dpbench.training.augmentation import Augmentation
from tests.support.digits import CPU, DIGITS, relabelled, weights

TRAIN, TEST = DIGITS.train, DIGITS.test

EPOCHS = 12


# an epoch ends within every second or third step of 40 images
BY_EPOCH = Recipe("", mlp, -(-EPOCHS * 90 // 40), True, 0.02, 0, batch=40)


LEARNING, HELD_OUT = (relabelled(TRAIN, 0.5)[part] for part in (slice(90), slice(90, 130)))


def after_epochs() -> list[torch.nn.Module]:
    """What training without selection gives at the end of each epoch."""
    steps = [-(-epoch * 90 // 40) for epoch in range(1, EPOCHS + 1)]
    return [train(replace(BY_EPOCH, steps=each), LEARNING, 10, 0, CPU) for each in steps]


def test_the_epoch_is_the_best_on_held_out_images() -> None:
    epochs = after_epochs()
    best, best_on_test = (
        int(np.argmax([accuracy(each, part, CPU) for each in epochs])) for part in (HELD_OUT, TEST)
    )
    selected = weights(train(BY_EPOCH, LEARNING, 10, 0, CPU, held_out=HELD_OUT))
    same = [torch.equal(weights(each), selected) for each in epochs]
    assert same == [epoch == best for epoch in range(EPOCHS)]
    # the broken twins: the last epoch, and the one that is best on the test split
    assert best not in (EPOCHS - 1, best_on_test)


def test_of_equal_epochs_the_earliest_is_kept_with_its_statistics(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reached = iter([10.0, 30.0, 20.0, 30.0])
    monkeypatch.setattr(
        "dpbench.evaluators.classifiers.training.accuracy", lambda *_: next(reached)
    )
    recipe = replace(BY_EPOCH, network=small_cnn, steps=9)
    network = train(recipe, LEARNING, 10, 0, CPU, held_out=HELD_OUT)
    assert next(reached, None) is None, "four epochs, each looked at once"
    steps = {int(m.num_batches_tracked) for m in network.modules() if hasattr(m, "momentum")}
    assert steps == {5}, "of 40 images each, to the end of the second epoch of 90"


def test_an_average_over_epochs_has_no_best_one() -> None:
    with pytest.raises(ValueError, match="averages"):
        train(replace(BY_EPOCH, average=0.9), LEARNING, 10, 0, CPU, held_out=HELD_OUT)


def test_members_differ_in_the_order_of_minibatches_alone() -> None:
    recipe = Recipe("", small_cnn, 2, False, 0.1, 0)

    def trained(order: int, **changes: object) -> Tensor:
        return weights(train(replace(recipe, **changes), TRAIN[:300], 10, 7, CPU, order=order))

    assert torch.equal(trained(1, learning_rate=0.0), trained(2, learning_rate=0.0))
    assert not torch.equal(trained(1), trained(2))
    assert torch.equal(trained(1), trained(1))


@pytest.mark.parametrize("adam", [True, False])
def test_the_learning_rate_drops_to_a_fifth_where_it_should(adam: bool) -> None:
    recipe = Recipe("", mlp, 10, adam, 0.5, 0, sgd=Sgd(schedule="constant"), drops=(0.4, 0.8))
    optimizer, schedule = make_optimizer(recipe, mlp(ImageSpec(1, 8, 8), 10))
    rates = []
    for _ in range(recipe.steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.5] * 4 + [0.1] * 4 + [0.02] * 2)


def test_an_average_of_weights_has_statistics_of_its_own() -> None:
    recipe = Recipe("", small_cnn, 40, False, 0.05, 0, average=0.9)
    network = train(recipe, TRAIN, 10, 0, CPU)
    assert (predict(network, TEST.pixels, CPU) == TEST.labels).double().mean() > 0.8
    seen: list[Tensor] = []
    first = network[1] if isinstance(network, torch.nn.Sequential) else network
    first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    predict(network, TRAIN.pixels, CPU)
    mean = torch.cat(seen).mean(dim=(0, 2, 3))
    assert torch.allclose(first.running_mean, mean, atol=0.01)


def test_copies_and_parts_of_a_minibatch_give_its_mean_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = Recipe("", logistic_regression, 3, False, 0.1, 0)

    def trained(**changes: object) -> Tensor:
        return weights(train(replace(recipe, **changes), TRAIN, 10, 0, CPU))

    once = trained()
    monkeypatch.setattr("dpbench.evaluators.classifiers.training.PHYSICAL_BATCH", 50)
    assert torch.allclose(trained(copies=2), once, atol=1e-5)
    assert not torch.allclose(trained(learning_rate=0.2), once, atol=1e-3)


def test_schedules_and_weight_decay_change_training() -> None:
    recipe = Recipe("", logistic_regression, 5, False, 0.1, 0)
    changes: Sequence[dict[str, object]] = (
        *({}, {"sgd": Sgd(schedule="cosine")}, {"sgd": Sgd(schedule="constant")}),
        *({"sgd": Sgd(momentum=0.5)}, {"sgd": Sgd(weight_decay=0.1)}, {"batch": 64}),
        {"augmentation": Augmentation(crop=2)},
    )
    sums = {
        weights(train(replace(recipe, **each), TRAIN, 10, 0, CPU)).abs().sum().item()
        for each in changes
    }
    assert len(sums) == len(changes)
