from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dpbench.api.evaluator import EvaluationContext, Need
from dpbench.api.profiles import SMOKE, CasSettings, Profile
from dpbench.core.images import Images
from dpbench.core.metrics import Measurement
from dpbench.core.streams import Streams
from dpbench.evaluators import cas
from dpbench.evaluators.cas import EVALUATOR
from dpbench.evaluators.classifiers.training import train
from tests.support.digits import CPU, DIGITS, Log, evaluation, relabelled

CLASSIFIERS = ("cas_logreg", "cas_mlp", "cas_cnn")
TRAIN, TEST = DIGITS.train, DIGITS.test


def profile(steps: int, ensemble: bool) -> Profile:
    settings = replace(SMOKE.evaluation, cas=CasSettings(steps, ensemble))
    return replace(SMOKE, evaluation=settings)


QUICK = profile(5, ensemble=False)  # for what does not depend on how much was learned


def case(synthetic: Images, seed: int = 0, **changes: object) -> EvaluationContext:
    def open_real(need: Need) -> Images:
        assert need is Need.REAL_TEST
        return TEST

    return evaluation(synthetic, seed=seed, **{"open_real": open_real, **changes})


def rows(context: EvaluationContext) -> dict[str, Measurement]:
    return {row.metric: row for row in EVALUATOR().evaluate(context)}


def values(context: EvaluationContext) -> dict[str, float | None]:
    return {metric: row.value for metric, row in rows(context).items()}


class Kept:
    """What an evaluator gave to be kept."""

    def __init__(self) -> None:
        self.arrays: dict[str, NDArray[np.generic]] = {}

    def __call__(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        self.arrays = dict(arrays)


KEPT = Kept()


@pytest.fixture(scope="module")
def on_real() -> dict[str, Measurement]:
    return rows(case(TRAIN, keep=KEPT))


def test_real_images_score_high(on_real: dict[str, Measurement]) -> None:
    assert all(on_real[name].value > 80 for name in CLASSIFIERS), on_real
    assert on_real["cas_cnn"].value > 90


def test_the_mean_is_the_mean_of_the_three(on_real: dict[str, Measurement]) -> None:
    mean = sum(on_real[name].value for name in CLASSIFIERS) / 3
    assert on_real["cas_mean"].value == pytest.approx(mean)


def test_rows_are_declared_and_say_what_they_were_measured_on(
    on_real: dict[str, Measurement],
) -> None:
    specs = {spec.name: spec for spec in EVALUATOR.metrics}
    classes = {f"cas_cnn_class{label}" for label in range(10)}
    of_paper = {"cas_wrn", *cas.SELECTED, *(name for name in specs if "dpimagebench" in name)}
    assert on_real.keys() - classes == specs.keys() - of_paper - {"cas_cnn_class*"}
    assert classes < on_real.keys()
    for metric, row in on_real.items():
        spec = specs["cas_cnn_class*" if metric in classes else metric]
        assert (row.unit, row.higher_is_better) == (spec.unit, spec.higher_is_better)
        assert (row.n, row.split) == (len(TRAIN), "test")
        assert metric in classes or row.n_real == len(TEST)
    assert on_real["cas_cnn"].extractor == "cnn16-32-64/sgd60"
    assert on_real["cas_cnn_ensemble"].extractor == "5xcnn16-32-64/sgd60"
    assert len({row.seed for row in on_real.values()}) == 4


def test_random_labels_score_near_chance() -> None:
    found = values(case(relabelled(TRAIN, 1.0)))
    assert all(found[name] < 30 for name in CLASSIFIERS)


def test_wrong_labels_lower_the_score(on_real: dict[str, Measurement]) -> None:
    assert values(case(relabelled(TRAIN, 0.7)))["cas_mean"] < on_real["cas_mean"].value - 2


def test_same_streams_give_the_same_scores_whatever_was_drawn_before(
    on_real: dict[str, Measurement],
) -> None:
    torch.rand(7)
    assert rows(case(TRAIN)) == on_real


def test_other_seeds_give_other_scores(on_real: dict[str, Measurement]) -> None:
    other = rows(case(TRAIN, seed=1))
    assert any(other[name].value != on_real[name].value for name in CLASSIFIERS)


def test_global_random_numbers_and_threads_are_left_as_they_were() -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    rows(case(TRAIN[:200], profile=QUICK))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_the_test_split_is_opened_once_after_all_training() -> None:
    log = Log()

    def open_real(need: Need) -> Images:
        log.events.append("open")
        return TEST

    rows(case(TRAIN, progress=log, open_real=open_real, profile=QUICK))
    assert log.events == ["step"] * 15 + ["open"]
    assert log.done == log.announced


def test_a_class_that_is_alone_is_predicted_everywhere_and_flagged() -> None:
    threes = TRAIN[TRAIN.labels == 3]
    share = 100 * (TEST.labels == 3).double().mean().item()
    log = Log()
    found = values(case(threes, progress=log))
    assert found["cas_mlp"] == pytest.approx(share)
    assert found["cas_collapsed"] == 3
    assert found["cas_mean"] == pytest.approx(sum(found[name] for name in CLASSIFIERS) / 3)
    assert found["cas_cnn_class3"] == 100 and found["cas_cnn_class4"] == 0
    assert log.events[-1].endswith("cas_logreg, cas_mlp, cas_cnn")


def test_images_that_are_all_equal_are_scored() -> None:
    grey = Images(torch.full_like(TRAIN.pixels, 128), TRAIN.labels)
    found = values(case(grey, profile=QUICK))
    assert all(0 <= found[name] < 30 for name in CLASSIFIERS)


def test_a_single_image_is_scored() -> None:
    found = values(case(TRAIN[:1], profile=QUICK))
    assert all(found[name] is not None for name in (*CLASSIFIERS, "cas_mean"))


# --- what is kept of each image, and what follows from it


def test_nothing_has_collapsed_on_real_images(on_real: dict[str, Measurement]) -> None:
    assert on_real["cas_collapsed"].value == 0


@pytest.mark.parametrize(
    ("predicted", "labels", "collapsed"),
    [
        ([0, 0, 0, 0], [0, 1, 0, 1], True),
        ([0, 1, 0, 0], [0, 1, 0, 1], False),
        ([0, 1, 2, 4], [0, 1, 2, 3], False),
        ([0, 1, 1, 1], [0, 1, 2, 3], True),
        ([0, 0, 0, 0], [0, 0, 0, 0], False),
    ],
)
def test_collapsed_means_at_most_half_the_classes(
    predicted: list[int], labels: list[int], collapsed: bool
) -> None:
    assert cas.is_collapsed(torch.tensor(predicted), torch.tensor(labels)) is collapsed


def wrong_in_kept(
    arrays: Mapping[str, NDArray[np.generic]], found: Mapping[str, Measurement]
) -> list[str]:
    """Metrics whose value is not what the kept predictions give for ``TEST`` in its order."""
    labels = TEST.labels.numpy()
    return [
        name
        for name, predicted in arrays.items()
        if name != "labels" and found[name].value != 100 * (predicted == labels).sum() / len(labels)
    ]


def test_kept_predictions_are_those_of_the_test_split_in_its_order(
    on_real: dict[str, Measurement],
) -> None:
    assert np.array_equal(KEPT.arrays["labels"], TEST.labels.numpy())
    assert KEPT.arrays.keys() == {*CLASSIFIERS, "labels"}
    assert wrong_in_kept(KEPT.arrays, on_real) == []


def test_predictions_kept_in_another_order_would_be_caught(
    on_real: dict[str, Measurement],
) -> None:
    shuffled = {name: np.roll(array, 1) for name, array in KEPT.arrays.items()}
    assert wrong_in_kept(shuffled, on_real) == [*CLASSIFIERS]


def test_classes_and_interval_are_of_the_kept_predictions(
    on_real: dict[str, Measurement],
) -> None:
    predicted, labels = KEPT.arrays["cas_cnn"], KEPT.arrays["labels"]
    for label in range(10):
        row = on_real[f"cas_cnn_class{label}"]
        assert row.value == pytest.approx(100 * (predicted[labels == label] == label).mean())
        assert row.n_real == (labels == label).sum()
    score, n = on_real["cas_cnn"].value / 100, len(TEST)
    for end in ("cas_cnn_low", "cas_cnn_high"):
        share = on_real[end].value / 100
        # the score test holds at both ends, with equality
        assert abs(score - share) == pytest.approx(1.959964 * (share * (1 - share) / n) ** 0.5)
    assert on_real["cas_cnn_low"].value < 100 * score < on_real["cas_cnn_high"].value


def test_a_class_without_test_images_has_a_reason() -> None:
    test = TEST[TEST.labels != 9]
    found = rows(case(TRAIN[:200], open_real=lambda need: test, profile=QUICK))
    assert found["cas_cnn_class9"].value is None
    assert found["cas_cnn_class9"].reason == "no test image of this class"
    assert found["cas_cnn_class8"].value is not None


# --- the ensemble


STEPS, MEMBERS = 10, 3  # less than usual, to take less time


def by_hand() -> list[int]:
    """Classes that CNNs, trained one by one, predict together for ``TEST``."""
    settings = CasSettings(STEPS, ensemble=True)
    recipe = cas.recipes(settings, len(TRAIN), "digits", TRAIN.spec)["cas_cnn"]
    streams, total = Streams(0), torch.zeros(len(TEST), 10)
    first = streams.seed("evaluation", "cas", "cas_cnn")
    others = [streams.seed("evaluation", "cas", "cas_cnn", "order", k) for k in range(1, MEMBERS)]
    for order in (first, *others):
        network = train(recipe, TRAIN, 10, first, CPU, order=order)
        with torch.no_grad():
            total += network(TEST.pixels / 127.5 - 1).softmax(1)
    return total.argmax(1).tolist()


def test_the_ensemble_is_of_different_networks_and_not_one_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cas, "MEMBERS", MEMBERS)
    kept = Kept()
    found = rows(case(TRAIN, keep=kept, profile=profile(STEPS, ensemble=True)))
    expected = by_hand()
    assert kept.arrays["cas_cnn_ensemble"].tolist() == expected
    assert kept.arrays["cas_cnn"].tolist() != expected, "the first again and again would pass"
    assert kept.arrays.keys() == {*CLASSIFIERS, "cas_cnn_ensemble", "labels"}
    assert wrong_in_kept(kept.arrays, found) == []
    assert found["cas_cnn_ensemble"].extractor == "3xcnn16-32-64/sgd10"


def test_a_profile_without_an_ensemble_has_a_row_that_says_so() -> None:
    found = rows(case(TRAIN[:200], profile=QUICK))
    assert found["cas_cnn_ensemble"].value is None
    assert found["cas_cnn_ensemble"].reason == "profile smoke trains no ensemble of 5 CNNs"
    assert found["cas_cnn"].value is not None
