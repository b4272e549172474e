from __future__ import annotations

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dpbench.api.evaluator import EvaluationContext, Need
from dpbench.api.profiles import PAPER, SMOKE
from dpbench.core.cache import Cache
from dpbench.core.images import Images, ImageSpec
from dpbench.core.metrics import Measurement
from dpbench.core.progress import Progress, Silent
from dpbench.core.streams import Streams
from dpbench.evaluators.realism import EVALUATOR, discriminator, normalised

SPEC = ImageSpec(1, 8, 8)


def grey(level: float, spread: float, seed: int, count: int) -> Tensor:
    """Noisy images of one brightness each, normal around a level."""
    rng = torch.Generator().manual_seed(seed)
    brightness = level + spread * torch.randn(count, 1, 1, 1, generator=rng)
    noise = 10 * torch.randn(count, *SPEC.shape, generator=rng)
    return (brightness + noise).clamp(0, 255).to(torch.uint8)


def labelled(pixels: Tensor) -> Images:
    return Images(pixels, torch.arange(len(pixels)) % 4)


@dataclass
class Public:
    """A public set of limited size."""

    draw: Callable[[int, int], Tensor]
    size: int = 10_000
    name: str = "greys"
    identity: str = "0123456789abcdef"
    asked: list[int] = field(default_factory=list)

    classes: int | None = None

    def images(self, count: int, progress: Progress, classes: int | None = None) -> Images:
        self.asked.append(count)
        return labelled(self.draw(7, min(count, self.size)))


def private(seed: int, count: int) -> Tensor:
    return grey(100, 15, seed, count)


def public(seed: int, count: int) -> Tensor:
    return grey(160, 15, seed, count)


def overlapping(seed: int, count: int) -> Tensor:
    return grey(130, 15, seed, count)


def case(synthetic: Tensor, source: Public | None, **changes: object) -> EvaluationContext:
    real = {
        Need.REAL_TRAIN: labelled(private(1, 600)),
        Need.REAL_TEST: labelled(private(2, 400)),
    }
    context = EvaluationContext(
        dataset="greys",
        classes=4,
        synthetic=labelled(synthetic),
        open_real=real.__getitem__,
        profile=SMOKE,
        device=torch.device("cpu"),
        streams=Streams(0),
        progress=Silent(),
        cache=Cache(Path("unused")),
        public=source,
    )
    return replace(context, **changes)


def rows(context: EvaluationContext) -> dict[str, Measurement]:
    return {row.metric: row for row in EVALUATOR().evaluate(context)}


def half_case() -> EvaluationContext:
    """Images of classes 0 and 1 from the private distribution, of 2 and 3 from the public one."""
    images = labelled(private(3, 400))
    from_public = (images.labels >= 2)[:, None, None, None]
    mixed = torch.where(from_public, public(4, 400), images.pixels)
    return case(mixed, Public(public), classes=5)


@pytest.fixture(scope="module")
def half() -> dict[str, Measurement]:
    return rows(half_case())


def test_images_of_either_distribution_are_known_by_it(half: dict[str, Measurement]) -> None:
    assert half["realism_accuracy"].value > 95
    assert min(half[f"realism_share_class{label}"].value for label in (0, 1)) > 90
    assert max(half[f"realism_share_class{label}"].value for label in (2, 3)) < 10
    assert half["realism_share"].value == pytest.approx(50, abs=5)


def test_the_interval_is_around_the_share(half: dict[str, Measurement]) -> None:
    low, high = (half[f"realism_share_{end}"].value for end in ("low", "high"))
    assert low < half["realism_share"].value < high
    assert high - low == pytest.approx(9.75, abs=0.1)  # 2 * 1.96 * sqrt(.25 / 400), in %


def test_rows_are_declared_and_say_what_they_were_measured_on(
    half: dict[str, Measurement],
) -> None:
    declared = [spec.name for spec in EVALUATOR.metrics]
    assert all(any(fnmatch.fnmatchcase(name, spec) for spec in declared) for name in half)
    assert len(half) == 5 + 5
    assert {row.extractor for row in half.values()} == {"cnn16-32-64/sgd60 vs greys-01234567"}
    share, accuracy = half["realism_share"], half["realism_accuracy"]
    assert (share.n, share.n_real, share.split) == (400, 500, "train")
    assert (accuracy.n, accuracy.n_real, accuracy.split) == (0, 400, "test")
    assert half["realism_share_class3"].n == 100


def test_the_normalised_share_recovers_a_mixture_that_the_plain_one_misses() -> None:
    mixture = torch.cat([private(5, 900), overlapping(6, 2100)])
    found = rows(case(mixture, Public(overlapping)))
    assert found["realism_accuracy"].value == pytest.approx(84, abs=5)  # Phi(15 / 15)
    assert found["realism_share"].value > 35
    assert found["realism_share_normalised"].value == pytest.approx(30, abs=6)


def test_public_images_of_the_private_distribution_leave_nothing_to_normalise() -> None:
    found = rows(case(private(3, 200), Public(private)))
    assert found["realism_accuracy"].value == pytest.approx(50, abs=8)
    assert found["realism_share_normalised"].value is None
    assert "cannot tell them apart" in found["realism_share_normalised"].reason
    assert found["realism_share"].value is not None


def test_a_run_without_public_images_has_rows_that_say_so() -> None:
    found = rows(case(private(3, 20), None, open_real=lambda need: pytest.fail("opened")))
    assert list(found) == [spec.name for spec in EVALUATOR.metrics]
    assert all(row.value is None and "no public" in row.reason for row in found.values())


def test_a_class_without_images_has_a_row_that_says_so(half: dict[str, Measurement]) -> None:
    assert half["realism_share_class4"].value is None
    assert "no synthetic image" in half["realism_share_class4"].reason


def test_few_public_images_are_shared_out_between_training_and_testing() -> None:
    source = Public(public, size=180)
    found = rows(case(private(3, 40), source))
    assert source.asked == [900]
    assert found["realism_share"].n_real + found["realism_accuracy"].n_real == 180
    assert found["realism_accuracy"].value > 90


@pytest.mark.parametrize(("size", "enough"), [(1, False), (2, False), (3, True)])
def test_too_few_public_images_are_a_reason_that_says_how_many_are_needed(
    size: int, enough: bool
) -> None:
    found = rows(case(private(3, 40), Public(public, size=size)))
    reason = found["realism_accuracy"].reason
    assert reason == (
        "" if enough else f"needs at least 3 public images, to train and to test on; got {size}"
    )


def test_same_streams_give_the_same_rows(half: dict[str, Measurement]) -> None:
    torch.rand(7)
    assert rows(half_case()) == half


def test_normalised_share_has_its_ends_at_the_rates_of_held_out_images() -> None:
    def judged(private_like: int) -> Tensor:
        return torch.arange(100) < private_like

    assert normalised(judged(80), judged(80), judged(10)) == pytest.approx(100)
    assert normalised(judged(10), judged(80), judged(10)) == pytest.approx(0)
    assert normalised(judged(45), judged(80), judged(10)) == pytest.approx(50)
    assert isinstance(normalised(judged(45), judged(55), judged(50)), str)
    assert isinstance(normalised(judged(45), judged(10), judged(80)), str)


def test_the_discriminator_is_the_profiles() -> None:
    assert discriminator(PAPER.evaluation.realism).id == "resnet18-3x3stem/sgd5000"
    assert discriminator(SMOKE.evaluation.realism).id == "cnn16-32-64/sgd60"
