from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dpbench.core.cache import Cache
from dpbench.core.errors import RunFailed
from dpbench.core.images import Images, content_hash
from dpbench.core.pixels import from_pixels
from dpbench.core.progress import Silent
from dpbench.evaluators.classifiers.prediction import accuracy
from dpbench.evaluators.classifiers.recipe import Recipe
from dpbench.evaluators.features import cnn
from tests.support.digits import CPU, DIGITS


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

    def features(images: Images) -> tuple[str, Tensor]:
        found = cnn.cnn_extractor("mine", 10, images, Cache(tmp_path), CPU, Silent())
        return found.id, found.network(DIGITS.test.pixels)

    first, again = features(DIGITS.train), features(DIGITS.train)
    assert first[0] == again[0] and torch.equal(first[1], again[1])
    assert runs == [cnn.SEED]
    content = content_hash(DIGITS.train)
    assert first[0] == f"cnn64-recipe1-{content[:8]}"
    features(DIGITS.train[:700])
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
