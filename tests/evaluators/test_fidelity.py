from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cleanfid.fid
import numpy as np
import pytest
import scipy.linalg
import timm
import torch
from cleanfid.inception_torchscript import InceptionV3W
from PIL import Image
from torch import Tensor, nn
from torch_fidelity import calculate_metrics
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric
from torchvision.transforms.functional import gaussian_blur

from dpbench.api.evaluator import EvaluationContext, Need
from dpbench.api.profiles import SMOKE
from dpbench.core.errors import RunFailed, UserError
from dpbench.core.images import Images, content_hash
from dpbench.core.metrics import Measurement
from dpbench.core.pixels import from_pixels
from dpbench.core.progress import Silent
from dpbench.core.streams import Streams
from dpbench.data.load import load
from dpbench.evaluators import fidelity
from dpbench.evaluators.classifiers.prediction import accuracy
from dpbench.evaluators.classifiers.recipe import Recipe
from dpbench.evaluators.distances import prdc as prdc_module
from dpbench.evaluators.distances.frechet import frechet_at_infinity, frechet_distance, gaussian
from dpbench.evaluators.distances.kid import kernel_distance
from dpbench.evaluators.distances.prdc import Prdc, prdc, squared_radii
from dpbench.evaluators.features import cnn, dinov2, extractor, metrics
from dpbench.evaluators.features.inception import inception_extractor

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
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DPBENCH_INCEPTION", raising=False)
    monkeypatch.delenv("DPBENCH_DINOV2", raising=False)


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


@pytest.fixture
def clean_fid_with_this_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    """``sqrtm(..., disp=False)`` no longer gives the pair that clean-fid takes apart."""

    def sqrtm(matrix: np.ndarray, disp: bool = True) -> object:
        root = scipy.linalg.sqrtm(matrix)
        return root if disp else (root, 0.0)

    monkeypatch.setattr(cleanfid.fid, "linalg", SimpleNamespace(sqrtm=sqrtm))


@pytest.mark.usefixtures("clean_fid_with_this_scipy")
def test_distance_is_that_of_clean_fid() -> None:
    first, second = correlated(1), correlated(2)
    expected = cleanfid.fid.fid_from_feats(first, second)
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
    pinned = cnn.PINNED["digits"][:8]
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
    assert accuracy(cnn.pinned_network("digits"), DIGITS.test, CPU) > 98


@pytest.mark.parametrize("dataset", sorted(cnn.PINNED))
def test_changed_weights_are_refused(dataset: str, tmp_path: Path) -> None:
    shutil.copy(cnn.WEIGHTS / f"{dataset}.npz", tmp_path)
    cnn.pinned_network(dataset, tmp_path)
    content = bytearray((tmp_path / f"{dataset}.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / f"{dataset}.npz").write_bytes(content)
    with pytest.raises(RunFailed, match="reinstall"):
        cnn.pinned_network(dataset, tmp_path)


@pytest.mark.parametrize("dataset", sorted(cnn.PINNED))
def test_weights_are_small(dataset: str) -> None:
    assert (cnn.WEIGHTS / f"{dataset}.npz").stat().st_size < 400_000


def test_other_data_sets_get_a_network_by_the_recipe_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []

    def short_training(
        images: Images, classes: int, seed: int, advance: Callable[[float], None]
    ) -> cnn.FeatureCnn:
        runs.append(seed)
        short = Recipe("cnn64", lambda spec, c: cnn.FeatureCnn(spec.channels, c), 3, False, 0.1, 0)
        return cnn.train(short, images, classes, seed, CPU, advance)

    monkeypatch.setattr(cnn, "train_extractor", short_training)
    first = rows(case(DIGITS.train[:200], tmp_path, dataset="mine"))
    again = rows(case(DIGITS.train[:200], tmp_path, dataset="mine"))
    assert first == again
    assert runs == [cnn.SEED]
    content = content_hash(DIGITS.train)
    assert first["fd_cnn", "test"].extractor == f"cnn64-recipe1-{content[:8]}"

    def open_other(need: Need) -> Images:
        return DIGITS.train[:700] if need is Need.REAL_TRAIN else DIGITS.test

    rows(case(DIGITS.train[:200], tmp_path, dataset="mine", open_real=open_other))
    assert len(runs) == 2, "other train images need another network"


@pytest.mark.slow
def test_the_recipe_remakes_the_pinned_weights() -> None:
    made = cnn.train_extractor(DIGITS.train, 10, cnn.SEED)
    assert accuracy(made, DIGITS.test, CPU) > 98
    pixels = from_pixels(DIGITS.test.pixels)
    with torch.no_grad():
        ours, pinned = (
            network.features(pixels) for network in (made, cnn.pinned_network("digits"))
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


def test_distance_at_infinity_has_lost_the_bias_of_few_images() -> None:
    rng = np.random.default_rng(0)
    reference = gaussian(rng.normal(size=(200_000, 8)))
    draws = [rng.normal(size=(500, 8)) for _ in range(30)]
    moments = [gaussian(features) for features in draws]
    biased = [
        frechet_distance(few.mean, few.covariance, reference.mean, reference.covariance)
        for few in moments
    ]
    at_infinity = [frechet_at_infinity(features, reference, rng) for features in draws]
    assert abs(np.mean(at_infinity)) < np.mean(biased) / 5
    shifted = frechet_at_infinity(draws[0] + 1, reference, rng)
    assert shifted == pytest.approx(8, rel=0.1)


def test_kernel_distance_is_that_of_torch_fidelity() -> None:
    first, second = correlated(1), correlated(2)
    expected = kid_features_to_metric(
        *(torch.from_numpy(x).double() for x in (first, second)),
        kid_subsets=3,
        kid_subset_size=100,
        rng_seed=5,
        verbose=False,
    )["kernel_inception_distance_mean"]
    found = kernel_distance(first, second, subsets=3, size=100, seed=5)
    assert found == pytest.approx(expected, rel=1e-6)


def test_kernel_distance_is_unbiased() -> None:
    rng = np.random.default_rng(0)
    same = [kernel_distance(*rng.normal(size=(2, 50, 4)), 1, 50, 0) for _ in range(300)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(len(same))
    assert min(same) < 0


def shares(real: np.ndarray, synthetic: np.ndarray, k: int = 5) -> Prdc:
    return prdc(real, squared_radii(real, k), synthetic, squared_radii(synthetic, k), k)


def test_precision_and_recall_are_those_of_torch_fidelity_in_any_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, synthetic = correlated(1, 300), correlated(1, 700)[300:] * np.float32(1.2)
    monkeypatch.setattr(prdc_module, "CHUNK_DISTANCES", 7 * 400)
    found = shares(real, synthetic)
    expected = prc_features_to_metric(
        torch.from_numpy(synthetic), torch.from_numpy(real), prc_neighborhood=5, verbose=False
    )
    assert found.precision == pytest.approx(expected["precision"], rel=1e-6)
    assert found.recall == pytest.approx(expected["recall"], rel=1e-6)
    assert 0.1 < found.precision < 0.95 and 0.1 < found.recall < 0.95


def test_density_and_coverage_are_those_of_their_definition() -> None:
    real, synthetic = correlated(1, 300), correlated(1, 700)[300:] * np.float32(1.2)
    radii = np.sort(np.linalg.norm(real[:, None] - real, axis=-1))[:, 5]
    inside = np.linalg.norm(real[:, None] - synthetic, axis=-1) < radii[:, None]
    found = shares(real, synthetic)
    assert found.density == pytest.approx(inside.sum(0).mean() / 5, rel=1e-6)
    assert found.coverage == pytest.approx(inside.any(1).mean(), rel=1e-6)


def test_collapse_costs_recall_and_coverage_and_no_precision() -> None:
    real = correlated(1, 300)
    collapsed = real[:1] + 1e-3 * correlated(2, 300)
    found = shares(real, collapsed)
    assert found.precision > 0.9
    assert found.recall < 0.1
    assert found.coverage < 0.1


def test_damage_to_one_class_is_seen_in_that_class_alone(tmp_path: Path) -> None:
    hurt = DIGITS.train.pixels.clone()
    third = DIGITS.train.labels == 3
    hurt[third] = hurt[third].flip(3)
    found = rows(
        case(Images(hurt, DIGITS.train.labels), tmp_path, open_real=lambda need: DIGITS.train)
    )
    classes = {c: found[f"fd_cnn_class{c}", "test"] for c in range(10)}
    assert [c for c, row in classes.items() if row.value > 1e-6] == [3]
    assert classes[3].n == classes[3].n_real == int(third.sum())


def test_what_too_few_images_have_is_measured_and_the_rest_has_a_reason(tmp_path: Path) -> None:
    found = rows(case(DIGITS.train[:100], tmp_path))
    assert found["fd_cnn", "test"].value > 0
    assert "more than 128 images" in found["fd_cnn_infinity", "test"].reason
    assert "more than 64 images in every set; got" in found["fd_cnn_class0", "test"].reason
    for metric in ("kid_cnn", "precision_cnn", "recall_cnn", "density_cnn", "coverage_cnn"):
        assert found[metric, "test"].value is not None
    found = rows(case(DIGITS.train[:5], tmp_path))
    assert "more than 5 images" in found["recall_cnn", "train"].reason
    assert found["kid_cnn", "train"].value is not None
    assert "more than 1 images" in rows(case(DIGITS.train[:1], tmp_path))["kid_cnn", "test"].reason


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
    found = rows(case(Images(pixels, DIGITS.train.labels[:200]), tmp_path))
    assert found["fd_cnn_floor", "test"].value > 0
    for metric in ("fd_cnn", "fd_cnn_infinity", "kid_cnn", "precision_cnn", "coverage_cnn"):
        for split in ("test", "train"):
            assert found[metric, split].reason.startswith("2 synthetic images have features")


def test_features_of_real_images_are_taken_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = case(DIGITS.train[:200], tmp_path)
    first = rows(context)
    monkeypatch.setattr(extractor, "write_arrays", None)
    assert rows(context) == first


def test_clean_resize_is_no_change_at_the_same_size_and_repeats_grey() -> None:
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, 1, 16, 16), generator=rng, dtype=torch.uint8)
    assert torch.equal(extractor.clean_resize(pixels, 16), pixels.expand(-1, 3, -1, -1).float())
    larger = extractor.clean_resize(pixels, 40)
    assert larger.shape == (2, 3, 40, 40)
    assert not torch.equal(larger, larger.round()), "quantised"
    assert larger.min() >= 0 and larger.max() <= 255


def rgb(images: Images) -> Images:
    return Images(images.pixels.repeat(1, 3, 1, 1), images.labels)


def test_dinov2_measures_rgb_images_with_weights_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "RGB" in rows(case(DIGITS.train[:200], tmp_path))["fd_dinov2", "test"].reason
    sets = dict.fromkeys(("train", "test"), rgb(DIGITS.test[:12])) | {
        "synthetic": rgb(DIGITS.train[:12])
    }
    # a network of the same kind that is small
    monkeypatch.setattr(dinov2, "MODEL", "test_vit")
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), tmp_path / "vit.pth")
    extractor = dinov2.dinov2_extractor(tmp_path / "vit.pth", CPU)
    comparisons = [replace(c, more_than=1) for c in metrics.IN_DINOV2]
    context = case(sets["synthetic"], tmp_path)
    to_test, to_train = fidelity._measure(context, sets, comparisons, lambda: extractor)
    assert to_test.value > 0
    assert (to_test.metric, to_test.split, to_train.split) == ("fd_dinov2", "test", "train")
    assert to_test.extractor.startswith("dinov2-vitl14-clean224-")
    (tmp_path / "junk.pth").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded"), protocol=2))
    for name in ("absent.pth", "junk.pth"):
        with pytest.raises(UserError, match=f"DPBENCH_DINOV2 names .*{name}"):
            dinov2.dinov2_extractor(tmp_path / name, CPU)
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
def test_inception_metrics_are_those_of_torch_fidelity_through_the_whole_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "inception.pth"
    torch.save(inception_state(), file)
    monkeypatch.setenv("DPBENCH_INCEPTION", str(file))
    synthetic, test = DIGITS.train[:12], DIGITS.test[:12]
    # the same images as both real splits, so that their features are taken once, then cached
    sets = {"synthetic": synthetic, "train": test, "test": test}
    # one split of all images, so that their order does not matter
    monkeypatch.setattr(metrics, "INCEPTION_SCORE_SPLITS", 1)
    extractor = inception_extractor(file, CPU, clean=False)
    assert extractor.id.startswith("inception-v3-tf2015-bilinear299-")
    of_few = [replace(c, more_than=1) for c in metrics.IN_INCEPTION[:2]]
    measured = fidelity._measure(
        case(synthetic, tmp_path),
        sets,
        [*metrics.IN_INCEPTION, *of_few],
        lambda: extractor,
    )
    assert (measured[0].metric, measured[0].value) == ("fid", None)
    assert "more than 2048 images" in measured[0].reason
    ours = {(row.metric, row.split): row.value for row in measured}
    theirs = calculate_metrics(
        input1=Rgb(synthetic),
        input2=Rgb(test),
        fid=True,
        kid=True,
        kid_subset_size=12,
        kid_subsets=2,
        isc=True,
        isc_splits=1,
        feature_extractor_weights_path=str(file),
        cache=False,
        cuda=False,
        save_cpu_ram=True,
        verbose=False,
    )
    assert ours["fid", "train"] == pytest.approx(ours["fid", "test"], rel=1e-9)
    assert ours["precision", "test"] is not None
    for metric, split, their_name in (
        ("fid", "test", "frechet_inception_distance"),
        ("kid", "test", "kernel_inception_distance_mean"),
        ("inception_score", "", "inception_score_mean"),
    ):
        assert ours[metric, split] == pytest.approx(theirs[their_name], rel=1e-5), metric
        assert abs(theirs[their_name]) > 1e-3, metric

    # where there is nothing to resize, the two ways are one
    clean = inception_extractor(file, CPU, clean=True)
    rng = torch.Generator().manual_seed(0)
    large = torch.randint(0, 256, (1, 3, 299, 299), generator=rng, dtype=torch.uint8)
    first, second = (e.features(large, CPU, lambda count: None) for e in (extractor, clean))
    assert np.linalg.norm(second - first) < 1e-5 * np.linalg.norm(first)
    assert clean.id.startswith("inception-v3-tf2015-clean299-")


@pytest.mark.slow
@pytest.mark.usefixtures("clean_fid_with_this_scipy")
def test_fid_clean_is_that_of_clean_fid_through_the_whole_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Image files, clean-fid's resize, its feature extraction and its distance against ours.

    Two things are not clean-fid's own. The weights are made for the test, so that its wrapper of
    Inception finds them in place of the file that it would download. Of the features the first 8
    are compared, since all 2048 would need more than 2048 images.
    """
    kept, count = 8, 20
    file = tmp_path / "inception.pth"
    torch.save(inception_state(), file)
    sets = {"synthetic": DIGITS.train[:count], "test": DIGITS.test[:count]}
    for name, images in sets.items():
        (tmp_path / name).mkdir()
        for place, image in enumerate(images.pixels):
            Image.fromarray(image[0].numpy()).save(tmp_path / name / f"{place}.png")

    ours = inception_extractor(file, CPU, clean=True)
    first_features = replace(
        ours, dimension=kept, network=lambda pixels: ours.network(pixels)[:, :kept]
    )
    to_test = replace(metrics.IN_CLEAN_INCEPTION[0], more_than=kept)
    (row,) = fidelity._measure(
        case(sets["synthetic"], tmp_path), sets, [to_test], lambda: first_features
    )

    network = FeatureExtractorInceptionV3("", ["2048"], feature_extractor_weights_path=str(file))
    base = nn.Module()
    base.layers = nn.Sequential(*list(network.children())[:-1], nn.Flatten())
    monkeypatch.setattr(torch.jit, "load", lambda path: base)
    theirs = InceptionV3W(str(tmp_path), download=False)
    expected = cleanfid.fid.compute_fid(
        *(str(tmp_path / "synthetic"), str(tmp_path / "test")),
        num_workers=0,
        device=CPU,
        custom_feat_extractor=lambda batch: theirs(batch)[:, :kept],
        verbose=False,
    )
    assert (row.metric, row.split) == ("fid_clean", "test")
    assert row.value == pytest.approx(expected, rel=1e-5)
    assert expected > 1e-3
