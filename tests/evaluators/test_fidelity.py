from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from dpbench.api.evaluator import EvaluationContext
from dpbench.core.cache import Cache
from dpbench.core.errors import UserError
from dpbench.core.images import Images
from dpbench.core.metrics import Measurement
from dpbench.core.pixels import from_pixels
from dpbench.evaluators import fidelity
from dpbench.evaluators.features import cnn, extractor
from tests.support.digits import DIGITS, Bomb, evaluation


def rows(context: EvaluationContext) -> dict[tuple[str, str], Measurement]:
    return {(row.metric, row.split): row for row in fidelity.EVALUATOR().evaluate(context)}


def fd_cnn(pixels: Tensor, cache: Path) -> float:
    return rows(evaluation(Images(pixels, DIGITS.test.labels), cache))["fd_cnn", "test"].value


def test_a_split_against_itself_has_no_distance(tmp_path: Path) -> None:
    found = rows(evaluation(DIGITS.test, tmp_path))
    assert found["fd_cnn", "test"].value < 1e-6
    assert found["fd_cnn", "train"].value == pytest.approx(found["fd_cnn_floor", "test"].value)
    assert found["fd_cnn_floor", "test"].value > 0.01


def noised(amount: int) -> Tensor:
    noise = torch.randn(DIGITS.test.pixels.shape, generator=torch.Generator().manual_seed(0))
    return (DIGITS.test.pixels + amount * noise).clamp(0, 255).to(torch.uint8)


def blurred(sigma: float) -> Tensor:
    return gaussian_blur(DIGITS.test.pixels, 9, sigma)


def collapsed(classes: int) -> Tensor:
    kept = DIGITS.test.pixels[DIGITS.test.labels < classes]
    return kept.repeat(10, 1, 1, 1)[: len(DIGITS.test)]


@pytest.mark.parametrize(
    ("damage", "amounts"),
    [(noised, (0, 16, 32, 64, 128)), (blurred, (0.3, 0.7, 1.0, 2.0)), (collapsed, (10, 7, 4, 1))],
)
def test_fd_cnn_grows_with_damage(
    damage: Callable[[float], Tensor], amounts: tuple[float, ...], tmp_path: Path
) -> None:
    distances = [fd_cnn(damage(amount), tmp_path) for amount in amounts]
    assert all(a < b for a, b in zip(distances, distances[1:], strict=False)), distances
    assert distances[-1] > 1


def test_all_sets_have_the_size_of_the_smallest(tmp_path: Path) -> None:
    few, many = (
        rows(evaluation(DIGITS.train[:n], tmp_path))["fd_cnn", "train"]
        for n in (200, len(DIGITS.train))
    )
    assert (few.n, few.n_real) == (200, 200)
    assert (many.n, many.n_real) == (len(DIGITS.test), len(DIGITS.test))


def test_rows_are_declared_and_name_their_extractor(tmp_path: Path) -> None:
    found = rows(evaluation(DIGITS.train[:200], tmp_path))
    declared = {spec.name for spec in fidelity.EVALUATOR.metrics} - {"fd_cnn_class*"}
    assert {metric for metric, _ in found} == declared | {f"fd_cnn_class{c}" for c in range(10)}
    pinned = cnn.PINNED["digits"][:8]
    assert found["fd_cnn", "test"].extractor == f"cnn64-digits-{pinned}"


def test_same_streams_choose_the_same_images_and_others_do_not(tmp_path: Path) -> None:
    def floor(seed: int, cache: Path) -> float:
        context = evaluation(DIGITS.train[:200], cache, seed)
        return rows(context)["fd_cnn_floor", "test"].value

    first = floor(0, tmp_path / "a")
    assert floor(0, tmp_path / "b") == first
    assert floor(0, tmp_path / "a") == first, "what the cache holds is something else"
    assert floor(1, tmp_path / "a") != first


def test_no_covariance_from_as_many_images_as_features(tmp_path: Path) -> None:
    few = rows(evaluation(DIGITS.train[:64], tmp_path))
    assert few["fd_cnn", "test"].value is None
    assert "more than 64 images" in few["fd_cnn", "test"].reason
    assert few["fd_cnn_floor", "test"].value is None
    assert rows(evaluation(DIGITS.train[:65], tmp_path))["fd_cnn", "test"].value > 0


def test_missing_inception_weights_are_a_row_with_a_reason(tmp_path: Path) -> None:
    found = rows(evaluation(DIGITS.train[:200], tmp_path))
    for split in ("test", "train"):
        assert found["fid", split].value is None
        assert "weights-inception-2015-12-05-6726825d.pth" in found["fid", split].reason
        assert "DPBENCH_INCEPTION=" in found["fid", split].reason
        assert "\n" not in found["fid", split].reason


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_missing_is_what_evaluating_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int
) -> None:
    """Otherwise a run without weights would be tried again in vain, or not when they are there."""

    def no_cnn(*arguments: object) -> None:
        raise UserError("the images have no CNN")

    monkeypatch.setattr(fidelity, "cnn_extractor", no_cnn)
    told: dict[str, None] = {}
    images = Images(DIGITS.test.pixels.expand(-1, channels, -1, -1), DIGITS.test.labels)[:65]
    context = replace(
        evaluation(images, tmp_path),
        open_real=lambda need: images,
        unavailable=lambda reason: told.setdefault(reason),
    )
    rows(context)
    missing = fidelity.EVALUATOR.missing(images.spec)
    assert "; ".join(told) == missing and "DPBENCH_INCEPTION=" in missing
    assert ("DPBENCH_DINOV2=" in missing) == (channels == 3)


def test_bad_inception_files_are_a_row_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    (tmp_path / "junk.pth").write_bytes(b"not weights")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "bomb.pth").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded"), protocol=2))
    for name in ("absent.pth", "other.pth", "junk.pth", "empty.pth", "bomb.pth", ""):
        monkeypatch.setenv("DPBENCH_INCEPTION", str(tmp_path / name))
        found = rows(evaluation(DIGITS.train[:200], tmp_path))
        assert found["fid", "test"].value is None
        assert str(tmp_path / name) in found["fid", "test"].reason
        assert "\n" not in found["fid", "test"].reason
        assert found["fd_cnn", "test"].value > 0
    assert not (tmp_path / "exploded").exists()


def test_damage_to_one_class_is_seen_in_that_class_alone(tmp_path: Path) -> None:
    hurt = DIGITS.train.pixels.clone()
    third = DIGITS.train.labels == 3
    hurt[third] = hurt[third].flip(3)
    found = rows(
        evaluation(Images(hurt, DIGITS.train.labels), tmp_path, open_real=lambda need: DIGITS.train)
    )
    classes = {c: found[f"fd_cnn_class{c}", "test"] for c in range(10)}
    assert [c for c, row in classes.items() if row.value > 1e-6] == [3]
    assert classes[3].n == classes[3].n_real == int(third.sum())


def test_what_too_few_images_have_is_measured_and_the_rest_has_a_reason(tmp_path: Path) -> None:
    found = rows(evaluation(DIGITS.train[:100], tmp_path))
    assert found["fd_cnn", "test"].value > 0
    assert "more than 128 images" in found["fd_cnn_infinity", "test"].reason
    assert "more than 64 images in every set; got" in found["fd_cnn_class0", "test"].reason
    for metric in ("kid_cnn", "precision_cnn", "recall_cnn", "density_cnn", "coverage_cnn"):
        assert found[metric, "test"].value is not None
    found = rows(evaluation(DIGITS.train[:5], tmp_path))
    assert "more than 5 images" in found["recall_cnn", "train"].reason
    assert found["kid_cnn", "train"].value is not None
    assert (
        "more than 1 images"
        in rows(evaluation(DIGITS.train[:1], tmp_path))["kid_cnn", "test"].reason
    )


def test_dinov2_is_for_rgb_images_alone(tmp_path: Path) -> None:
    assert "RGB" in rows(evaluation(DIGITS.train[:200], tmp_path))["fd_dinov2", "test"].reason


def test_broken_features_are_a_reason_and_other_sets_are_still_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = cnn.pinned_network("digits")

    def fails_on_black(pixels: Tensor) -> Tensor:
        features = network.features(from_pixels(pixels))
        return features.masked_fill((pixels == 0).flatten(1).all(1)[:, None], torch.nan)

    broken = extractor.Extractor("broken", 64, fails_on_black, batch=500)
    monkeypatch.setattr(fidelity, "cnn_extractor", lambda *arguments: broken)
    pixels = DIGITS.train.pixels[:200].clone()
    pixels[:2] = 0
    found = rows(evaluation(Images(pixels, DIGITS.train.labels[:200]), tmp_path))
    assert found["fd_cnn_floor", "test"].value > 0
    for metric in ("fd_cnn", "fd_cnn_infinity", "kid_cnn", "precision_cnn", "coverage_cnn"):
        for split in ("test", "train"):
            assert found[metric, split].reason.startswith("2 synthetic images have features")


def test_features_of_real_images_are_taken_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = evaluation(DIGITS.train[:200], tmp_path)
    first = rows(context)
    monkeypatch.setattr(Cache, "keep", None)
    assert rows(context) == first
