from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from dpbench.evaluators._classifiers import dpdm_cnn, logistic_regression, mlp, small_cnn
from dpbench.evaluators.cas import EVALUATOR
from dpbench.profiles import PAPER, SMOKE
from dpbench.progress import Silent
from dpbench.protocols import EvaluationContext, Need
from dpbench.streams import Streams
from dpbench.types import Images, ImageSpec, Measurement

CLASSIFIERS = ("cas_logreg", "cas_mlp", "cas_cnn")


def digits() -> tuple[Images, Images]:
    bundle = load_digits()
    pixels = (bundle.images * 15).astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)
    images = Images(torch.from_numpy(pixels)[:, None], torch.from_numpy(bundle.target).long())
    return images[:1400], images[1400:]


TRAIN, TEST = digits()


def case(synthetic: Images, seed: int = 0, **changes: object) -> EvaluationContext:
    def open_real(need: Need) -> Images:
        assert need is Need.REAL_TEST
        return TEST

    context = EvaluationContext(
        dataset="digits",
        classes=10,
        synthetic=synthetic,
        open_real=open_real,
        profile=SMOKE,
        device=torch.device("cpu"),
        streams=Streams(seed),
        progress=Silent(),
        cache=Path("unused"),
    )
    return replace(context, **changes)


def rows(context: EvaluationContext) -> dict[str, Measurement]:
    return {row.metric: row for row in EVALUATOR().evaluate(context)}


def values(context: EvaluationContext) -> dict[str, float | None]:
    return {metric: row.value for metric, row in rows(context).items()}


def relabelled(share: float) -> Images:
    rng = torch.Generator().manual_seed(1)
    wrong = torch.rand(len(TRAIN), generator=rng) < share
    random = torch.randint(10, (len(TRAIN),), generator=rng)
    return Images(TRAIN.pixels, torch.where(wrong, random, TRAIN.labels))


@pytest.fixture(scope="module")
def on_real() -> dict[str, Measurement]:
    return rows(case(TRAIN))


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
    assert list(on_real) == list(specs)
    for row in on_real.values():
        assert (row.n, row.n_real, row.split) == (1400, len(TEST), "test")
        assert (row.unit, row.higher_is_better) == ("%", specs[row.metric].higher_is_better)
    assert on_real["cas_cnn"].extractor == "cnn16-32-64/sgd60"
    assert len({row.seed for row in on_real.values()}) == 4


def test_random_labels_score_near_chance() -> None:
    assert all(value < 30 for value in values(case(relabelled(1.0))).values())


def test_wrong_labels_lower_the_score(on_real: dict[str, Measurement]) -> None:
    assert values(case(relabelled(0.7)))["cas_mean"] < on_real["cas_mean"].value - 2


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
    rows(case(TRAIN[:200]))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


class Log:
    """Progress that writes down what happens."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.announced = self.done = 0.0

    def advance(self, amount: float, note: str = "") -> None:
        self.done += amount
        self.events.append("step")

    def note(self, text: str) -> None:
        pass

    @contextmanager
    def task(self, label: str, total: float, unit: str, done: float = 0) -> Iterator[Log]:
        self.announced += total
        yield self


def test_the_test_split_is_opened_once_after_all_training() -> None:
    log = Log()

    def open_real(need: Need) -> Images:
        log.events.append("open")
        return TEST

    rows(case(TRAIN, progress=log, open_real=open_real))
    assert log.events == ["step"] * 180 + ["open"]
    assert log.done == log.announced


def test_a_class_that_is_alone_is_predicted_everywhere() -> None:
    threes = TRAIN[TRAIN.labels == 3]
    share = 100 * (TEST.labels == 3).double().mean().item()
    assert values(case(threes))["cas_mlp"] == pytest.approx(share)


def test_images_that_are_all_equal_are_scored() -> None:
    grey = Images(torch.full_like(TRAIN.pixels, 128), TRAIN.labels)
    assert all(0 <= value < 30 for value in values(case(grey)).values())


def test_a_single_image_is_scored() -> None:
    assert all(value is not None for value in values(case(TRAIN[:1])).values())


def test_paper_has_the_classifiers_of_dpdm() -> None:
    spec = ImageSpec(1, 28, 28)
    assert [tuple(p.shape) for p in mlp(spec, 10).parameters() if p.ndim == 2] == [
        (100, 784),
        (10, 100),
    ]
    assert [tuple(p.shape) for p in dpdm_cnn(spec, 10).parameters() if p.ndim == 2] == [
        (128, 1152),
        (10, 128),
    ]


def test_paper_tells_why_small_images_have_no_cnn() -> None:
    found = rows(case(TRAIN[:32], profile=PAPER))
    assert found["cas_cnn"].value is None
    assert "18 pixels" in found["cas_cnn"].reason
    assert found["cas_mean"].value is None
    assert found["cas_mlp"].value is not None


def test_paper_measures_all_classifiers_on_images_of_its_size() -> None:
    test = Images(torch.zeros(20, 1, 28, 28, dtype=torch.uint8), torch.zeros(20).long())
    synthetic = Images(torch.zeros(32, 1, 28, 28, dtype=torch.uint8), torch.zeros(32).long())
    context = case(synthetic, profile=PAPER, open_real=lambda need: test)
    assert set(values(context).values()) == {100.0}


@pytest.mark.parametrize("build", [logistic_regression, mlp, small_cnn])
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 16, 16), (1, 28, 28), (3, 32, 32), (3, 20, 30)])
def test_networks_take_images_of_any_size(
    build: Callable[[ImageSpec, int], torch.nn.Module], shape: tuple[int, int, int]
) -> None:
    assert build(ImageSpec(*shape), 7)(torch.zeros(2, *shape)).shape == (2, 7)
