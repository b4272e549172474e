from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn
from torch_fidelity import calculate_metrics
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torchvision.transforms.functional import gaussian_blur

from dpbench.data.load import load
from dpbench.errors import RunFailed
from dpbench.evaluators import _comparisons, _features, fidelity
from dpbench.evaluators._classifiers import Recipe, accuracy
from dpbench.evaluators._frechet import frechet_at_infinity, frechet_distance, gaussian
from dpbench.profiles import SMOKE
from dpbench.progress import Silent
from dpbench.protocols import EvaluationContext, Need
from dpbench.streams import Streams
from dpbench.types import Images, Measurement

DIGITS = load("digits", None, Silent()).splits
CPU = torch.device("cpu")


def case(synthetic: Images, cache: Path, seed: int = 0, **changes: object) -> EvaluationContext:
    real = {Need.REAL_TRAIN: DIGITS.train, Need.REAL_TEST: DIGITS.test}
    context = EvaluationContext(
        dataset="digits",
        classes=10,
        synthetic=synthetic,
        open_real=real.__getitem__,
        profile=SMOKE,
        device=CPU,
        streams=Streams(seed),
        progress=Silent(),
        cache=cache,
    )
    return replace(context, **changes)


def rows(context: EvaluationContext) -> dict[tuple[str, str], Measurement]:
    return {(row.metric, row.split): row for row in fidelity.EVALUATOR().evaluate(context)}


def fd_cnn(pixels: Tensor, cache: Path) -> float:
    return rows(case(Images(pixels, DIGITS.test.labels), cache))["fd_cnn", "test"].value


@pytest.fixture(autouse=True)
def no_inception(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DPBENCH_INCEPTION", raising=False)


def correlated(seed: int, count: int = 500, dimension: int = 64) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(dimension, dimension)) * np.geomspace(1, 1e-3, dimension)
    return (rng.normal(size=(count, dimension)) @ mixing + rng.normal(size=dimension)).astype("f4")


def distance(first: np.ndarray, second: np.ndarray) -> float:
    a, b = gaussian(first), gaussian(second)
    return frechet_distance(a.mean, a.covariance, b.mean, b.covariance)


def test_distance_of_diagonal_gaussians_has_a_closed_form() -> None:
    rng = np.random.default_rng(0)
    mu1, mu2 = rng.normal(size=(2, 50))
    sd1, sd2 = rng.exponential(size=(2, 50))
    expected = ((mu1 - mu2) ** 2).sum() + ((sd1 - sd2) ** 2).sum()
    found = frechet_distance(mu1, np.diag(sd1**2), mu2, np.diag(sd2**2))
    assert found == pytest.approx(expected, rel=1e-10)


def test_distance_is_that_of_the_general_matrix_root() -> None:
    first, second = correlated(1), correlated(2)
    a, b = gaussian(first), gaussian(second)
    root = np.real(scipy.linalg.sqrtm(a.covariance @ b.covariance))
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance - 2 * root)
    assert distance(first, second) == pytest.approx(expected, rel=1e-6)


def test_distance_is_that_of_torch_fidelity() -> None:
    first, second = correlated(1), correlated(2)
    statistics = [fid_features_to_statistics(torch.from_numpy(x)) for x in (first, second)]
    expected = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert distance(first, second) == pytest.approx(expected, rel=1e-6)


def test_distance_is_symmetric() -> None:
    first, second = correlated(1), correlated(2)
    assert distance(first, second) == pytest.approx(distance(second, first), rel=1e-7)


def test_singular_covariances_have_a_distance() -> None:
    few = correlated(3, count=20, dimension=150)
    scale = np.trace(gaussian(few).covariance)
    assert distance(few, few) < 1e-10 * scale
    assert distance(few, few + 1) == pytest.approx(150, rel=1e-5)
    constant = np.zeros((20, 150), "f4")
    assert distance(few, constant) == pytest.approx(
        scale + (few.mean(0, dtype="f8") ** 2).sum(), rel=1e-6
    )


def test_a_split_against_itself_has_no_distance(tmp_path: Path) -> None:
    found = rows(case(DIGITS.test, tmp_path))
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
        rows(case(DIGITS.train[:n], tmp_path))["fd_cnn", "train"] for n in (200, len(DIGITS.train))
    )
    assert (few.n, few.n_real) == (200, 200)
    assert (many.n, many.n_real) == (len(DIGITS.test), len(DIGITS.test))


def test_rows_are_declared_and_name_their_extractor(tmp_path: Path) -> None:
    found = rows(case(DIGITS.train[:200], tmp_path))
    declared = {spec.name for spec in fidelity.EVALUATOR.metrics} - {"fd_cnn_class*"}
    assert {metric for metric, _ in found} == declared | {f"fd_cnn_class{c}" for c in range(10)}
    pinned = _features.PINNED["digits"][:8]
    assert found["fd_cnn", "test"].extractor == f"cnn64-digits-{pinned}"


def test_same_streams_choose_the_same_images_and_others_do_not(tmp_path: Path) -> None:
    def floor(seed: int, cache: Path) -> float:
        context = case(DIGITS.train[:200], cache, seed)
        return rows(context)["fd_cnn_floor", "test"].value

    first = floor(0, tmp_path / "a")
    assert floor(0, tmp_path / "b") == first
    assert floor(0, tmp_path / "a") == first, "what the cache holds is something else"
    assert floor(1, tmp_path / "a") != first


def test_no_covariance_from_as_many_images_as_features(tmp_path: Path) -> None:
    few = rows(case(DIGITS.train[:64], tmp_path))
    assert few["fd_cnn", "test"].value is None
    assert "more than 64 images" in few["fd_cnn", "test"].reason
    assert few["fd_cnn_floor", "test"].value is None
    assert rows(case(DIGITS.train[:65], tmp_path))["fd_cnn", "test"].value > 0


def test_pinned_weights_know_the_digits() -> None:
    assert accuracy(_features.pinned_network("digits"), DIGITS.test, CPU) > 98


@pytest.mark.parametrize("dataset", sorted(_features.PINNED))
def test_changed_weights_are_refused(dataset: str, tmp_path: Path) -> None:
    shutil.copy(_features.WEIGHTS / f"{dataset}.npz", tmp_path)
    _features.pinned_network(dataset, tmp_path)
    content = bytearray((tmp_path / f"{dataset}.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / f"{dataset}.npz").write_bytes(content)
    with pytest.raises(RunFailed, match="reinstall"):
        _features.pinned_network(dataset, tmp_path)


@pytest.mark.parametrize("dataset", sorted(_features.PINNED))
def test_weights_are_small(dataset: str) -> None:
    assert (_features.WEIGHTS / f"{dataset}.npz").stat().st_size < 400_000


def test_other_data_sets_get_a_network_by_the_recipe_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []

    def short_training(
        images: Images, classes: int, seed: int, advance: Callable[[float], None]
    ) -> _features.FeatureCnn:
        runs.append(seed)
        short = Recipe(
            "cnn64", lambda spec, c: _features.FeatureCnn(spec.channels, c), 3, False, 0.1, 0
        )
        return _features.train(short, images, classes, seed, CPU, advance)

    monkeypatch.setattr(_features, "train_extractor", short_training)
    first = rows(case(DIGITS.train[:200], tmp_path, dataset="mine"))
    again = rows(case(DIGITS.train[:200], tmp_path, dataset="mine"))
    assert first == again
    assert runs == [_features.SEED]
    content = _features.content_hash(DIGITS.train)
    assert first["fd_cnn", "test"].extractor == f"cnn64-recipe1-{content[:8]}"

    def open_other(need: Need) -> Images:
        return DIGITS.train[:700] if need is Need.REAL_TRAIN else DIGITS.test

    rows(case(DIGITS.train[:200], tmp_path, dataset="mine", open_real=open_other))
    assert len(runs) == 2, "other train images need another network"


@pytest.mark.slow
def test_the_recipe_remakes_the_pinned_weights() -> None:
    made = _features.train_extractor(DIGITS.train, 10, _features.SEED)
    assert accuracy(made, DIGITS.test, CPU) > 98
    pixels = _features.from_pixels(DIGITS.test.pixels)
    with torch.no_grad():
        ours, pinned = (
            network.features(pixels) for network in (made, _features.pinned_network("digits"))
        )
    # loose, because other processors round otherwise and 1500 steps amplify it
    assert torch.corrcoef(torch.stack([ours.flatten(), pinned.flatten()]))[0, 1] > 0.5


def test_missing_inception_weights_are_a_row_with_a_reason(tmp_path: Path) -> None:
    found = rows(case(DIGITS.train[:200], tmp_path))
    for split in ("test", "train"):
        assert found["fid", split].value is None
        assert "weights-inception-2015-12-05-6726825d.pth" in found["fid", split].reason
        assert "DPBENCH_INCEPTION=" in found["fid", split].reason
        assert "\n" not in found["fid", split].reason


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.mkdir, (self.folder,)


def test_bad_inception_files_are_a_row_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    (tmp_path / "junk.pth").write_bytes(b"not weights")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "bomb.pth").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded"), protocol=2))
    for name in ("absent.pth", "other.pth", "junk.pth", "empty.pth", "bomb.pth", ""):
        monkeypatch.setenv("DPBENCH_INCEPTION", str(tmp_path / name))
        found = rows(case(DIGITS.train[:200], tmp_path))
        assert found["fid", "test"].value is None
        assert str(tmp_path / name) in found["fid", "test"].reason
        assert "\n" not in found["fid", "test"].reason
        assert found["fd_cnn", "test"].value > 0
    assert not (tmp_path / "exploded").exists()


@torch.no_grad()
def inception_state() -> dict[str, Tensor]:
    """Random weights whose features vary: the default ones give a spread of 6e-10."""
    rng = torch.Generator().manual_seed(0)

    class Uninitialised(FeatureExtractorInceptionV3):
        def load_state_dict(self, state: object) -> None:
            pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", lambda *a, **k: {})
        network = Uninitialised("inception", ["2048"], feature_extractor_weights_path="none")
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=rng)
        if isinstance(module, nn.BatchNorm2d):
            module.train()
            module.momentum = None
    network(torch.randint(0, 256, (8, 3, 16, 16), generator=rng, dtype=torch.uint8))
    return network.state_dict()


class Rgb(torch.utils.data.Dataset[Tensor]):
    """Grey images as torch-fidelity takes them."""

    def __init__(self, images: Images) -> None:
        self.pixels = images.pixels.repeat(1, 3, 1, 1)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Tensor:
        return self.pixels[index]


@pytest.mark.slow
def test_fid_is_that_of_torch_fidelity_through_the_whole_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "inception.pth"
    torch.save(inception_state(), file)
    monkeypatch.setenv("DPBENCH_INCEPTION", str(file))
    synthetic, test = DIGITS.train[:20], DIGITS.test[:20]
    context = case(synthetic, tmp_path)
    too_few = rows(context)["fid", "test"]
    assert "more than 2048 images" in too_few.reason
    assert too_few.extractor.startswith("inception-v3-tf2015-bilinear299-")

    # the same images as both real splits, so that their features are taken once, then cached
    sets = {"synthetic": synthetic, "train": test, "test": test}
    ours, to_train = fidelity._fid(context, sets, more_than=1)
    theirs = calculate_metrics(
        input1=Rgb(synthetic),
        input2=Rgb(test),
        fid=True,
        feature_extractor_weights_path=str(file),
        cache=False,
        cuda=False,
        save_cpu_ram=True,
        verbose=False,
    )["frechet_inception_distance"]
    assert (ours.metric, ours.split, ours.n) == ("fid", "test", 20)
    assert ours.value == pytest.approx(theirs, rel=1e-5)
    assert to_train.value == ours.value
    assert theirs > 1e-3
