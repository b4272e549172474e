"""The noisy label histogram and the private choice: bounded, noisy, on the ledger first."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from dpbench.core.errors import RunFailed, UserError
from dpbench.core.images import Images
from dpbench.core.streams import Streams
from dpbench.privacy import mechanisms
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.events import HistogramEvent, SelectionEvent
from dpbench.privacy.ledger import PrivacyLedger
from dpbench.privacy.mechanisms import PrivateImages, PrivateSetInfo
from tests.support import broken
from tests.support.checks import expect_refused
from tests.support.private import KEY, UNLIMITED, handle, some_images

CLASSES = 10
ONE = PrivacyBudget(1.0)


def labelled(labels: Sequence[int]) -> Images:
    count = len(labels)
    return Images(
        torch.zeros(count, 1, 1, 1, dtype=torch.uint8), torch.tensor(labels, dtype=torch.int64)
    )


def replaced(labels: Sequence[int], index: int, label: int) -> list[int]:
    return [label if i == index else each for i, each in enumerate(labels)]


LABELS = [i % CLASSES for i in range(47)]


# The histogram.


def histogram(labels: Sequence[int], sigma: float, kind: type[Streams] = Streams) -> Tensor:
    private = handle(labelled(labels), streams=kind(0, KEY))
    return private.label_histogram(HistogramEvent(sigma, "class sizes"))


def check_histogram_of_neighbours() -> None:
    """Without noise: one image more moves one count by 1, another label moves two."""
    whole = histogram(LABELS, 0.0)
    assert whole.tolist() == np.bincount(LABELS, minlength=CLASSES).tolist()
    for label in range(CLASSES):
        assert float((histogram([*LABELS, label], 0.0) - whole).norm()) == 1
    for i, label in itertools.product((0, 46), range(CLASSES)):
        moved = float((histogram(replaced(LABELS, i, label), 0.0) - whole).norm())
        assert moved == pytest.approx(0 if label == LABELS[i] else math.sqrt(2))
    assert histogram([], 0.0).tolist() == [0] * CLASSES
    # a label that is no class moves nothing, and changes no shape
    assert histogram([*LABELS, CLASSES, -1], 0.0).tolist() == whole.tolist()


def test_one_image_moves_a_histogram_by_one_and_another_label_by_the_root_of_two() -> None:
    check_histogram_of_neighbours()


@pytest.mark.parametrize(
    "twin",
    [
        broken.mechanisms.counts_twice,
        broken.mechanisms.counts_pixels_too,
        broken.mechanisms.as_long_as_the_largest_label,
    ],
)
def test_replaying_a_neighbour_catches_a_histogram_that(
    twin: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PrivateImages, "label_histogram", twin)
    with pytest.raises((AssertionError, RuntimeError)):
        check_histogram_of_neighbours()


def check_histogram_noise(kind: type[Streams]) -> None:
    """Over many classes without an image: the chi-square interval of sigma holds the stated one."""
    sigma, images = 3.0, labelled([])
    info = PrivateSetInfo("images", images.spec, 20_000, 1)
    private = PrivateImages(images, info, PrivacyLedger(UNLIMITED), kind(0, KEY))
    noise = private.label_histogram(HistogramEvent(sigma, "class sizes")).double()
    total, count = float(noise.square().sum()), noise.numel()
    assert 1e-5 < stats.chi2.cdf(total / sigma**2, count) < 1 - 1e-5
    assert stats.kstest(noise / sigma, "norm").pvalue > 1e-5


def test_a_histogram_has_fresh_gaussian_noise_of_the_stated_scale_on_every_count() -> None:
    check_histogram_noise(Streams)
    other = handle(labelled(LABELS)).label_histogram(HistogramEvent(3.0, "other sizes"))
    assert not torch.equal(histogram(LABELS, 3.0), other)


def test_looking_at_the_noise_of_a_histogram_catches_quieter_noise() -> None:
    with pytest.raises(AssertionError):
        check_histogram_noise(broken.noise.Quieter)


# The choice.


def by_label(candidate: float, part: Images) -> Tensor:
    """1 for each image of the candidate's class."""
    return (part.labels == int(candidate)).float()


def choose(
    labels: Sequence[int],
    sigma: float,
    score: Callable[[float, Images], Tensor] = by_label,
    candidates: Sequence[float] = (0, 1, 2),
    key: bytes = KEY,
) -> float:
    private = handle(labelled(labels), streams=Streams(0, key))
    return private.select(candidates, score, SelectionEvent(sigma, "choice"))


def check_bounded_scores() -> None:
    """No image counts more than one, or less than none, whatever its score is."""

    def shouting(candidate: float, part: Images) -> Tensor:
        return torch.where(part.labels == 0, candidate, by_label(2, part) * (candidate == 2))

    # one image of class 0 against two of class 2
    for loud in (50.0, math.inf, math.nan):
        assert choose([0, 2, 2], 0.0, shouting, (2, loud)) == 2

    def hating(candidate: float, part: Images) -> Tensor:
        return torch.where(part.labels == 0, -50.0 * (candidate == 2), by_label(candidate, part))

    assert choose([0, 1, 2, 2], 0.0, hating) == 2


def test_one_image_has_one_vote() -> None:
    check_bounded_scores()


@pytest.mark.parametrize(
    "twin",
    [
        broken.mechanisms.scores_without_bound,
        broken.mechanisms.scores_with_a_floor_only,
        broken.mechanisms.lets_scores_sink,
    ],
)
def test_shouting_images_catch_scores(twin: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mechanisms, "_bounded_score", twin)
    with pytest.raises(AssertionError):
        check_bounded_scores()


def check_odds() -> None:
    """Over many keys: each candidate is chosen as often as the exponential mechanism says."""
    labels, sigma, keys = [0] * 3 + [1] * 5 + [2] * 6, 2.0, 2500
    chosen = [choose(labels, sigma, key=number.to_bytes(32, "big")) for number in range(keys)]
    weights = np.exp(np.array([3, 5, 6]) / sigma)
    expected = keys * weights / weights.sum()
    assert stats.chisquare(np.bincount(chosen, minlength=3), expected).pvalue > 1e-4


def test_a_candidate_is_chosen_with_the_probability_that_was_accounted_for() -> None:
    check_odds()


@pytest.mark.parametrize(
    "twin",
    [
        broken.mechanisms.selects_at_twice_the_sensitivity,
        broken.mechanisms.selects_the_best,
        broken.mechanisms.selects_by_gauss,
    ],
)
def test_counting_choices_catches_a_selection_that(
    twin: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PrivateImages, "select", twin)
    with pytest.raises(AssertionError):
        check_odds()


def test_images_beyond_one_chunk_are_counted_and_scored_too() -> None:
    labels = [0] * 4097 + [1] * 4100
    assert histogram(labels, 0.0).tolist()[:2] == [4097, 4100]
    assert choose(labels, 0.0) == 1


def test_a_choice_over_no_images_is_noise() -> None:
    chosen = {choose([], 1.0, key=bytes([number] * 32)) for number in range(40)}
    assert chosen == {0, 1, 2}


def test_scores_of_another_shape_or_no_candidate_are_refused() -> None:
    expect_refused(ValueError, lambda: choose(LABELS, 0.0, lambda c, part: torch.zeros(3)))
    expect_refused(ValueError, lambda: choose(LABELS, 0.0, lambda c, part: torch.zeros(47, 1)))
    expect_refused(ValueError, lambda: choose(LABELS, 0.0, candidates=()))


# The ledger.


def test_both_are_on_the_ledger_before_an_image_is_looked_at(tmp_path: Path) -> None:
    journal = tmp_path / "ledger.json"
    private = handle(labelled(LABELS), PrivacyLedger(ONE, journal))
    private.label_histogram(HistogramEvent(8.0, "class sizes"))

    def looking(candidate: int, part: Images) -> Tensor:
        assert len(json.loads(journal.read_text())) == 2
        return torch.zeros(len(part))

    private.select((0, 1), looking, SelectionEvent(8.0, "choice"))


def test_neither_is_made_over_budget_or_twice() -> None:
    ledger = PrivacyLedger(ONE)
    private = handle(some_images(3), ledger)
    looked: list[int] = []

    def looking(candidate: int, part: Images) -> Tensor:
        looked.append(candidate)
        return torch.zeros(len(part))

    expect_refused(UserError, lambda: private.label_histogram(HistogramEvent(1.0, "sizes")))
    expect_refused(UserError, lambda: private.select((0, 1), looking, SelectionEvent(0.5, "best")))
    assert looked == [] and ledger.events == ()
    private.label_histogram(HistogramEvent(9.0, "sizes"))
    expect_refused(RunFailed, lambda: private.label_histogram(HistogramEvent(9.0, "sizes")))
    expect_refused(RunFailed, lambda: private.select((0, 1), looking, SelectionEvent(9.0, "sizes")))
    assert looked == [] and len(ledger.events) == 1
    assert [each["released"] for each in ledger.certificate(False)["events"]] == [1]
