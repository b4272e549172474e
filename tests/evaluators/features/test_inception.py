from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cleanfid.fid
import numpy as np
import pytest
import torch
from cleanfid.inception_torchscript import InceptionV3W
from PIL import Image
from torch import Tensor, nn
from torch_fidelity import calculate_metrics
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from dpbench.core.images import Images
from dpbench.evaluators import fidelity
from dpbench.evaluators.features import metrics
from dpbench.evaluators.features.inception import inception_extractor
from tests.support.digits import CPU, DIGITS, evaluation


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


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights' file, as both pipelines take it."""
    file = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(inception_state(), file)
    return file


@pytest.mark.slow
def test_inception_metrics_are_those_of_torch_fidelity_through_the_whole_pipeline(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPBENCH_INCEPTION", str(file))
    count = 6  # precision has 5 neighbours
    synthetic, test = DIGITS.train[:count], DIGITS.test[:count]
    # the same images as both real splits, so that their features are taken once, then cached
    sets = {"synthetic": synthetic, "train": test, "test": test}
    # one split of all images, so that their order does not matter
    monkeypatch.setattr(metrics, "INCEPTION_SCORE_SPLITS", 1)
    extractor = inception_extractor(file, CPU, clean=False)
    assert extractor.id.startswith("inception-v3-tf2015-bilinear299-")
    distances, score = metrics.IN_INCEPTION[:2], metrics.IN_INCEPTION[-1]
    of_few = [replace(each, more_than=1) for each in (*distances, score)]
    measured = fidelity.measure(
        evaluation(synthetic, tmp_path),
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
        kid_subset_size=count,
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
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Image files, clean-fid's resize, its feature extraction and its distance against ours.

    Two things are not clean-fid's own. The weights are made for the test, so that its wrapper of
    Inception finds them in place of the file that it would download. Of the features the first 4
    are compared, since all 2048 would need more than 2048 images.
    """
    kept, count = 4, 10
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
    (row,) = fidelity.measure(
        evaluation(sets["synthetic"], tmp_path), sets, [to_test], lambda: first_features
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
