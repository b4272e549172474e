"""One example moves a clipped sum, and one image a release, by no more than the clipping norm."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from dpbench.core.images import Images
from dpbench.privacy.clipping import ENGINES, engine
from dpbench.privacy.events import DPSGDEvent
from tests.support import broken
from tests.support.checks import Detected, expect
from tests.support.checks.clipping import (
    case,
)
from tests.support.private import (
    HUGE,
    POISON,
    Engine,
    Gradients,
    NoisyRegression,
    Steps,
    flat,
    perceptron,
    randomised,
    some_images,
    with_pixel,
)


@pytest.mark.filterwarnings("ignore:Full backward hook")
@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("network, multiplicity", [("perceptron", 8), ("unet", 2)])
def test_in_every_engine_one_example_moves_the_sum_by_no_more_than_the_clipping_norm(
    name: str, network: str, multiplicity: int
) -> None:
    check_neighbouring_copies(engine(name), network, multiplicity)


def expect_within(first: Gradients, second: Gradients, bound: float) -> None:
    """The inequality that a differential privacy claim rests on; NaN does not satisfy it."""
    distance = float((flat(first) - flat(second)).norm())
    expect(distance <= bound * (1 + 1e-5), "one example moves the sum by at most C")


def check_neighbouring_copies(engine: Engine, network: str, multiplicity: int) -> None:
    """Leave out each example of a batch in turn: the others keep the copies that were drawn."""
    given, noisy = case(network, multiplicity), 1 if network == "unet" else 0
    clipping_norm = 0.5 * given.median_norm
    count = len(given.copies[0])
    for bad in (None, torch.nan, 1e25):
        drawn = [part.clone() for part in given.copies]
        if bad is not None:
            drawn[noisy][2, 0, 0, 1, 1] = bad
        everyone = engine(given.model, given.objective, tuple(drawn), clipping_norm)
        for left_out in range(count):
            rest = torch.arange(count) != left_out
            copies = tuple(part[rest] for part in drawn)
            without = engine(given.model, given.objective, copies, clipping_norm)
            expect_within(everyone, without, clipping_norm)


@pytest.mark.parametrize(
    "twin",
    [
        broken.clipping.never_clips,
        broken.clipping.clips_each_copy_without_mean,
        broken.clipping.clips_the_batch,
        broken.clipping.clips_each_tensor,
        broken.clipping.lets_nan_through,
        broken.clipping.takes_norms_in_bfloat16,
    ],
)
def test_leaving_one_example_out_catches(twin: Engine) -> None:
    with pytest.raises(Detected):
        check_neighbouring_copies(twin, "perceptron", 8)


NEIGHBOURS: dict[str, Callable[[Images], Images]] = {
    "one more": lambda images: with_pixel(images, 100),
    "one less": lambda images: images[:-1],
    "one with NaN more": lambda images: with_pixel(images, POISON),
    "one beyond float range more": lambda images: with_pixel(images, HUGE),
}


def check_neighbouring_releases(change: Callable[[Images], Images]) -> float:
    """Replay training without noise on a neighbour: same weights, same draws for everybody else.

    Returns the largest difference, so that a neighbour that changes nothing is noticed.

    The images differ at the end, so nobody else's place in the sampler moves. The public size is
    far from the true one, and half of the images are in each batch.
    """
    images = some_images(30)
    steps = Steps(
        randomised(perceptron(), 1.0),
        NoisyRegression(2),
        DPSGDEvent(0.5, 0.0, 0.3, 6, "weights"),
        nominal_size=2000,
    )
    ours, theirs = steps(images), steps(change(images))
    assert len(ours) == len(theirs) == 6
    for mine, other in zip(ours, theirs, strict=True):
        expect_within(mine, other, 0.3)
    return max(float((flat(a) - flat(b)).norm()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("neighbour", NEIGHBOURS)
def test_a_neighbour_moves_each_release_by_no_more_than_the_clipping_norm(neighbour: str) -> None:
    moved = check_neighbouring_releases(NEIGHBOURS[neighbour])
    finite = neighbour in ("one more", "one less")
    assert moved == pytest.approx(0.3 if finite else 0, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(
    "name, twin, neighbour",
    [
        ("clipping.folded.clipped_sum", broken.clipping.never_clips, "one more"),
        ("clipping.folded.clipped_sum", broken.clipping.lets_nan_through, "one with NaN more"),
        (
            "clipping.folded.clipped_sum",
            broken.clipping.lets_nan_through,
            "one beyond float range more",
        ),
        ("clipping.folded.clipped_sum", broken.clipping.clips_each_copy_without_mean, "one more"),
        ("dpsgd.gradient_sum", broken.clipping.divides_by_the_realised_batch, "one less"),
        ("dpsgd.poisson_sample", broken.sampling.shuffles, "one less"),
        ("dpsgd.drawn_copies", broken.clipping.draws_one_after_another, "one more"),
    ],
)
def test_replaying_a_neighbour_catches(
    name: str, twin: object, neighbour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"dpbench.privacy.{name}", twin)
    with pytest.raises(Detected):
        check_neighbouring_releases(NEIGHBOURS[neighbour])
