from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import binomtest
from torch import Tensor

from dpbench.api.evaluator import Need
from dpbench.core.images import Images
from dpbench.core.metrics import Measurement
from dpbench.evaluators import memorization
from dpbench.evaluators.memorization import (
    EVALUATOR,
    Neighbours,
    authenticity,
    closer_to_train,
    count_copies,
    nearest,
)
from dpbench.stats.proportions import wilson_interval
from tests.support.digits import DIGITS, evaluation

# parts of the train split: the CNN of the digits has seen all three
TRAIN, TEST, FRESH = DIGITS.train[:450], DIGITS.train[450:900], DIGITS.train[900:1350]


def normal(seed: int, count: int, dimension: int = 10) -> Tensor:
    return torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed))


def noisy(images: Images, amount: float) -> Images:
    rng = torch.Generator().manual_seed(0)
    noise = amount * torch.randn(images.pixels.shape, generator=rng)
    return Images((images.pixels + noise).clamp(0, 255).to(torch.uint8), images.labels)


def rows(synthetic: Images, seed: int = 0, **changes: object) -> dict[str, Measurement]:
    real = {Need.REAL_TRAIN: TRAIN, Need.REAL_TEST: TEST}
    context = evaluation(synthetic, seed=seed, **{"open_real": real.__getitem__, **changes})
    return {row.metric: row for row in EVALUATOR().evaluate(context)}


def values(synthetic: Images, **changes: object) -> dict[str, float | None]:
    return {metric: row.value for metric, row in rows(synthetic, **changes).items()}


SPACES = pytest.mark.parametrize("space", ["pixels", "cnn"])


def thief() -> Images:
    """Train images that the cut to the size of the test split leaves out, for the most part."""
    return Images(TRAIN.pixels[:200].clone(), TRAIN.labels[:200])


def test_copies_are_counted_against_the_whole_train_split() -> None:
    few = {Need.REAL_TRAIN: TRAIN, Need.REAL_TEST: TEST[:20]}
    found = rows(thief(), open_real=few.__getitem__)["train_copies"]
    assert (found.value, found.n, found.n_real) == (200, 200, 450)


@pytest.mark.parametrize(
    "change, copies",
    [
        (lambda p: p, 200),
        (lambda p: p.flip(3), 200),
        (lambda p: p.flip(2), 0),
        (lambda p: p ^ 1, 0),
    ],
    ids=["as they are", "mirrored", "upside down", "one bit"],
)
def test_copies_are_equal_bit_by_bit_or_mirrored(
    change: Callable[[Tensor], Tensor], copies: int
) -> None:
    changed = Images(change(thief().pixels).contiguous(), thief().labels)
    assert count_copies(changed, TRAIN) == copies


def test_honest_images_have_as_many_copies_as_test_images() -> None:
    found = values(FRESH[:200])
    assert found["train_copies"] == found["train_copies_real"] == 0


def test_counting_in_a_cut_train_split_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = memorization.count_copies
    monkeypatch.setattr(memorization, "count_copies", lambda a, b: honest(a, b[:20]))
    with pytest.raises(AssertionError):
        test_copies_are_counted_against_the_whole_train_split()


@SPACES
def test_fresh_images_are_not_flagged(space: str) -> None:
    found = values(FRESH)
    low, high = (found[f"train_closer_{space}_{end}"] for end in ("low", "high"))
    assert low < 50 < high
    assert found[f"authpct_{space}"] == pytest.approx(found[f"authpct_{space}_real"], abs=8)


@SPACES
def test_noisy_copies_of_train_images_are_flagged(space: str) -> None:
    found = values(noisy(TRAIN, 4))
    assert found[f"train_closer_{space}_low"] > 90
    assert found[f"authpct_{space}"] < 10 < found[f"authpct_{space}_real"]


def test_a_few_copies_among_fresh_images_are_flagged() -> None:
    copies = noisy(TRAIN[:150], 4)
    some = Images(
        torch.cat([FRESH.pixels, copies.pixels]), torch.cat([FRESH.labels, copies.labels])
    )
    assert values(some)["train_closer_pixels_low"] > 50


def test_copies_of_test_images_lie_on_the_other_side() -> None:
    found = values(noisy(TEST, 4))
    assert found["train_closer_pixels_high"] < 10
    assert found["authpct_pixels"] == pytest.approx(found["authpct_pixels_real"], abs=3)


def test_one_image_again_and_again_is_no_evidence() -> None:
    """A binomial test would be certain; the exchange of one train and one test image is not."""
    index = torch.zeros(450, dtype=torch.int64)
    found = values(noisy(FRESH[index], 0))
    assert found["train_closer_pixels"] in (0, 100)
    assert found["train_closer_pixels_low"] < 50 < found["train_closer_pixels_high"]


def test_rows_are_declared_and_say_what_they_were_measured_on() -> None:
    found = rows(FRESH[:100])
    assert list(found) == [spec.name for spec in EVALUATOR.metrics]
    assert (found["authpct_cnn"].n, found["authpct_cnn"].n_real) == (100, 450)
    assert found["authpct_cnn_real"].n == 0
    assert found["authpct_pixels"].extractor == "pixels"
    assert found["authpct_cnn"].extractor.startswith("cnn64-digits-")
    assert {row.split for row in found.values()} == {"train"}


def test_both_splits_have_the_size_of_the_smaller_by_the_evaluation_stream() -> None:
    real = {Need.REAL_TRAIN: DIGITS.train[:1000], Need.REAL_TEST: DIGITS.test}
    first, again, other = (
        rows(DIGITS.train[1000:1300], seed, open_real=real.__getitem__) for seed in (0, 0, 1)
    )
    assert first["authpct_pixels"].n_real == len(DIGITS.test)
    assert first == again
    assert first["authpct_pixels"].value != other["authpct_pixels"].value


@pytest.mark.parametrize("chunk", [1, 700, memorization.CHUNK_DISTANCES])
def test_neighbours_are_those_of_all_distances(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memorization, "CHUNK_DISTANCES", chunk)
    queries, references = normal(0, 50), normal(1, 80)
    distances = cdist(queries.numpy(), references.numpy())
    found = nearest(queries, references)
    assert np.array_equal(found.index.numpy(), distances.argmin(1))
    assert found.squared.numpy() == pytest.approx(distances.min(1) ** 2, rel=1e-5)
    among = cdist(references.numpy(), references.numpy())
    np.fill_diagonal(among, np.inf)
    assert np.array_equal(nearest(references, references).index.numpy(), among.argmin(1))


def test_distances_of_near_copies_are_not_lost_to_rounding() -> None:
    references = 100 + normal(0, 50)
    found = nearest(references + 1e-3, references)
    assert found.squared.numpy() == pytest.approx(10 * 1e-6, rel=0.1)


def test_authenticity_compares_with_the_train_image_that_is_nearest() -> None:
    train = torch.tensor([[0.0], [1.0], [10.0]])
    images = torch.tensor([[0.5], [-2.0], [12.0], [25.0]])
    found = authenticity(nearest(images, train), nearest(train, train))
    # .5 < 1; 2 > 1; 2 < 9; 15 > 9
    assert found == 50


def votes(train: Tensor, test: Tensor, synthetic: Tensor) -> tuple[float, float, float]:
    return closer_to_train(nearest(synthetic, train), nearest(synthetic, test), len(train))


def far(count: int) -> Neighbours:
    return Neighbours(torch.arange(count), torch.ones(count).double())


def near(count: int) -> Neighbours:
    return Neighbours(torch.arange(count), torch.zeros(count).double())


def test_images_with_neighbours_of_their_own_have_the_interval_of_as_many_images() -> None:
    expected = binomtest(100, 100).proportion_ci(method="wilson")
    assert closer_to_train(near(100), far(100), 100)[1] == pytest.approx(expected.low, abs=0.002)
    assert closer_to_train(far(100), near(100), 100)[2] == pytest.approx(
        1 - expected.low, abs=0.002
    )


def test_ties_count_half() -> None:
    assert closer_to_train(near(100), near(100), 100)[0] == 0.5
    assert closer_to_train(near(1), near(1), 1)[0] == 0.5


@pytest.mark.parametrize(
    "draw",
    [lambda seed: normal(seed, 300), lambda seed: normal(seed, 3).repeat(100, 1)],
    ids=["varied", "collapsed"],
)
def test_images_without_memorisation_are_flagged_as_rarely_as_stated(
    draw: Callable[[int], Tensor],
) -> None:
    """Images share their neighbours, so that a binomial test, the broken twin, sees copies."""
    flagged = binomial = 0
    for trial in range(200):
        train, test = normal(3 * trial, 60), normal(3 * trial + 1, 60)
        share, low, high = votes(train, test, draw(3 * trial + 2))
        flagged += not low <= 0.5 <= high
        low, high = wilson_interval(300 * share, 300)
        binomial += not low <= 0.5 <= high
    # 5% of 200 expected; more than 20 in less than one of 500 cases
    assert flagged <= 20 < binomial
