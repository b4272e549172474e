from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from dpbench.core.streams import Streams
from dpbench.privacy import dpsgd
from dpbench.privacy.events import DPSGDEvent
from dpbench.privacy.sampling import poisson_sample
from tests.support import broken
from tests.support.checks import Detected
from tests.support.checks.sampling import check_empty_batches, check_sampler
from tests.support.private import KEY, Coordinates, OwnCoordinate, Steps, some_images


def test_each_image_is_in_each_batch_independently_at_the_public_rate() -> None:
    check_sampler()


@pytest.mark.parametrize(
    "twin",
    [
        broken.sampling.shuffles,
        broken.sampling.replaces,
        broken.sampling.samples_too_often,
        broken.sampling.favours_some,
        broken.sampling.takes_neighbours_together,
        broken.sampling.takes_the_first_batch_again,
    ],
)
def test_looking_at_the_batches_catches(
    twin: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dpsgd, "poisson_sample", twin)
    with pytest.raises(Detected):
        check_sampler()


def test_an_empty_batch_is_a_step_like_any_other() -> None:
    check_empty_batches()


@pytest.mark.parametrize("twin", [broken.sampling.never_empty, broken.sampling.shuffles])
def test_counting_empty_batches_catches(
    twin: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dpsgd, "poisson_sample", twin)
    with pytest.raises(Detected):
        check_empty_batches()


def test_a_step_over_no_images_at_all_is_noise() -> None:
    event = DPSGDEvent(0.5, 1.0, 1.0, 3, "weights")
    released = Steps(Coordinates(4), OwnCoordinate(), event)(some_images(0))
    assert len(released) == 3
    assert all(bool((step["weight"] != 0).all()) for step in released)


@pytest.mark.parametrize("rate, size", [(0.0, 0), (1.0, 50)])
def test_the_ends_of_the_range_take_nobody_and_everybody(rate: float, size: int) -> None:
    batch = poisson_sample(Streams(0, KEY).secret("poisson"), 50, rate)
    assert batch.dtype == torch.int64
    assert batch.tolist() == list(range(size))


def test_one_image_less_at_the_end_changes_nobody_elses_place() -> None:
    def draw(population: int) -> np.ndarray:
        return poisson_sample(Streams(0, KEY).secret("poisson", 3), population, 0.4).numpy()

    assert np.array_equal(draw(99), draw(100)[draw(100) < 99])
