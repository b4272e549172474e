from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dpbench.core.errors import RunFailed, UserError
from dpbench.core.images import Images
from dpbench.core.streams import Streams
from dpbench.privacy import dpsgd, mechanisms
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.events import GaussianEvent
from dpbench.privacy.ledger import PrivacyLedger
from dpbench.privacy.mechanisms import PrivateImages
from tests.support import broken
from tests.support.checks import Detected, expect, expect_close, expect_refused
from tests.support.checks.noise import (
    CLIPPING_NORM,
    SIGMA,
    check_average,
    check_noise,
    check_noise_is_secret,
    expect_gaussian,
    expect_unrelated,
)
from tests.support.private import (
    KEY,
    handle,
    some_images,
)


def test_every_weight_gets_fresh_gaussian_noise_of_the_stated_scale_at_every_step() -> None:
    check_noise()


@pytest.mark.parametrize(
    "twin",
    [
        broken.noise.scaled_by(0.97),
        broken.noise.scaled_by(0.1),
        broken.noise.scaled_by(0.0),
        broken.noise.scaled_by(1 / CLIPPING_NORM),
        broken.noise.missing_on("bias"),
        broken.noise.missing_on("last"),
        broken.noise.the_same_at_every_step,
        broken.noise.the_same_on_every_tensor,
        broken.noise.the_same_for_every_purpose,
        broken.noise.uniform,
    ],
    ids=[
        "0.97 of it",
        "a tenth of it",
        "none of it",
        "a scale without the clipping norm",
        "a small tensor without it",
        "the last tensor without it",
        "the same at every step",
        "the same on every tensor",
        "the same for every purpose",
        "uniform noise",
    ],
)
def test_looking_at_the_noise_catches(
    twin: broken.noise.Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dpsgd, "gaussian_noise", twin)
    with pytest.raises(Detected):
        check_noise()


def test_noise_depends_on_the_key_and_not_on_the_seed() -> None:
    check_noise_is_secret()


def test_changing_seed_and_key_catches_noise_from_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dpsgd, "gaussian_noise", broken.noise.from_the_public_seed)
    with pytest.raises(Detected):
        check_noise_is_secret()


# The average of the weights.


def test_the_average_that_is_released_is_that_of_weights_with_noise() -> None:
    check_average()


# One-shot sums.

WIDTH = 600_000


def one_shot(
    images: Images, noise_multiplier: float, streams: Streams | None = None, purpose: str = "sum"
) -> Tensor:
    """Rows of very different length: image i has 2 ^ (i - 5) on one coordinate; image 3 is NaN."""

    def features(part: Images) -> Tensor:
        rows = torch.zeros(len(part), 50)
        rows[torch.arange(len(part)), part.labels] = 2.0 ** (part.labels - 5).float()
        rows[part.labels == 3, 7] = torch.nan
        rows[part.labels == 4, 8] = torch.inf
        rows[part.labels == 5] = 1e30
        return rows

    private = handle(images, streams=streams)
    return private.gaussian_sum(features, GaussianEvent(noise_multiplier, CLIPPING_NORM, purpose))


def check_one_shot_rows() -> None:
    images = some_images(40)
    everybody = one_shot(images, 0.0)
    expect(bool(everybody.isfinite().all()), "rows without a length are dropped")
    expected = (2.0 ** (torch.arange(50) - 5).double()).clamp(max=CLIPPING_NORM)
    expected[[3, 4, 5]] = 0
    expected[40:] = 0
    expect_close(everybody, expected, 1e-5, 0, "each row is shortened to the clipping norm")
    for left_out in range(40):
        without = one_shot(images[images.labels != left_out], 0.0)
        moved = float((everybody - without).norm())
        expect(moved <= CLIPPING_NORM * (1 + 1e-5), "no row moves the sum by more than C")


def test_each_row_of_a_one_shot_sum_is_clipped_and_rows_without_a_length_are_dropped() -> None:
    check_one_shot_rows()


@pytest.mark.parametrize(
    "name, twin",
    [
        ("clip_factors", lambda norms, c: torch.ones_like(norms)),
        ("clip_factors", lambda norms, c: (c / norms).clamp(max=1)),
        ("clip_factors", lambda norms, c: (2 * c / norms).clamp(max=1).nan_to_num(0)),
        ("zero_rows", lambda rows, keep: rows),
    ],
    ids=["no clipping", "a NaN factor", "twice the norm", "a NaN row"],
)
def test_leaving_out_each_row_catches(
    name: str, twin: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mechanisms, name, twin)
    with pytest.raises(Detected):
        check_one_shot_rows()


def check_one_shot_noise(kind: type[Streams]) -> None:
    def noise(count: int, purpose: str = "sum") -> Tensor:
        private = handle(some_images(count, side=2), streams=kind(0, KEY))
        event = GaussianEvent(SIGMA, CLIPPING_NORM, purpose)
        return private.gaussian_sum(lambda part: torch.zeros(len(part), WIDTH), event)

    expect_gaussian(noise(3), SIGMA * CLIPPING_NORM)
    expect(torch.equal(noise(3), noise(17)), "the noise does not depend on the number of rows")
    expect_unrelated(noise(3), noise(3, "another sum"))


def test_a_one_shot_sum_has_noise_of_the_stated_scale_whatever_the_number_of_rows() -> None:
    check_one_shot_noise(Streams)


def test_looking_at_the_noise_of_a_one_shot_sum_catches_quieter_noise() -> None:
    with pytest.raises(Detected):
        check_one_shot_noise(broken.noise.Quieter)


def test_rows_beyond_one_chunk_are_summed_too() -> None:
    images = Images(
        torch.zeros(9000, 1, 1, 1, dtype=torch.uint8), torch.zeros(9000, dtype=torch.int64)
    )
    total = handle(images).gaussian_sum(
        lambda part: torch.ones(len(part), 1), GaussianEvent(0.0, 1.0, "count")
    )
    assert total.item() == pytest.approx(9000, rel=1e-5)


def check_that_rounding_does_not_show() -> None:
    """One row more must not move a sum over many by more than its norm, to one part in 10^6."""

    def total(count: int) -> Tensor:
        images = Images(torch.zeros(count, 1, 1, 1).byte(), torch.zeros(count, dtype=torch.int64))
        return handle(images).gaussian_sum(
            lambda part: 7.3 * torch.linspace(1, 2, 4).repeat(len(part), 1),
            GaussianEvent(0.0, 1.0, "sum"),
        )

    totals = [total(count) for count in range(5000, 5012)]
    steps = [float((more - less).norm()) for less, more in itertools.pairwise(totals)]
    expect(max(steps) <= 1 + 1e-6, "rounding does not show")


def test_rounding_does_not_show_beside_what_one_image_may_change() -> None:
    check_that_rounding_does_not_show()


def test_looking_at_rounding_catches_sums_in_single_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    summed = mechanisms._clipped_row_sum

    def single(images: Images, *arguments: Any) -> Tensor:
        return summed(images, *arguments).float()

    def total(self: Any, of_part: Any) -> Tensor:
        return of_part(self._PrivateImages__images)

    monkeypatch.setattr(mechanisms, "_clipped_row_sum", single)
    monkeypatch.setattr(PrivateImages, "_sum", total)
    with pytest.raises(Detected):
        check_that_rounding_does_not_show()


def test_a_one_shot_sum_over_no_images_is_noise() -> None:
    # the neighbour of a set of one image: it must not end in an error that tells them apart
    assert one_shot(some_images(1)[:0], 1.0).shape == (50,)


# The handle.


def limited() -> PrivacyLedger:
    return PrivacyLedger(PrivacyBudget(1.0))


def check_unprotected(private: PrivateImages) -> None:
    expect_refused(UserError, private.unprotected)


def test_images_are_handed_out_without_a_budget_only(monkeypatch: pytest.MonkeyPatch) -> None:
    images = some_images(3)
    check_unprotected(handle(images, limited()))
    assert handle(images).unprotected() is images
    monkeypatch.setattr(PrivateImages, "unprotected", lambda self: images)
    with pytest.raises(Detected):
        check_unprotected(handle(images, limited()))


def test_images_are_no_attribute_that_one_reads_by_mistake() -> None:
    private = handle(some_images(3), limited())
    public = {name for name in dir(private) if not name.startswith("_")}
    assert public == {"budget", "info", "unprotected", "close"} | {
        "dp_sgd",
        "gaussian_sum",
        "label_histogram",
        "select",
    }


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
def test_neither_images_nor_the_key_can_be_pickled_or_copied(
    copied: Callable[[object], object],
) -> None:
    for secret in (handle(some_images(3)), Streams(0, KEY)):
        with pytest.raises(RunFailed, match="cannot be pickled or copied"):
            copied(secret)
    copied(Streams(0))


def test_a_sum_over_budget_is_not_made() -> None:
    looked: list[Images] = []

    def features(part: Images) -> Tensor:
        looked.append(part)
        return torch.zeros(len(part), 2)

    private = handle(some_images(3), limited())
    event = GaussianEvent(0.5, 1.0, "too much")
    expect_refused(UserError, lambda: private.gaussian_sum(features, event))
    assert looked == []


def test_a_sum_is_made_once_for_each_purpose() -> None:
    ledger = PrivacyLedger(PrivacyBudget(1.0))
    private = handle(some_images(3), ledger)

    def release() -> Tensor:
        event = GaussianEvent(9.0, 1.0, "sum")
        return private.gaussian_sum(lambda part: torch.zeros(len(part), 4), event)

    release()
    expect_refused(RunFailed, release)
    assert len(ledger.events) == 1
