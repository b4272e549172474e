"""Every kind of result that is kept: damaged ones are made again, and nothing need be kept."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dpbench.core import files
from dpbench.core.cache import Cache
from dpbench.core.images import Images, ImageSpec
from dpbench.core.progress import Silent
from dpbench.core.streams import Streams
from dpbench.evaluators.classifiers import reference
from dpbench.evaluators.features import cnn
from dpbench.evaluators.features.extractor import Extractor, cached_features
from dpbench.privacy.clipping import selection
from dpbench.privacy.clipping.selection import choose
from dpbench.training.pretraining import Pretraining
from tests.support.damages import DAMAGES
from tests.support.digits import CPU, DIGITS
from tests.support.private import Regression, perceptron


@dataclass
class Kind:
    """Results of one kind.

    Attributes:
        get: Gets the result, from the cache or not.
        made: Has an entry for each time that it was made.
    """

    get: Callable[[], object]
    made: list[str] = field(default_factory=list)


def features(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Kind:
    def network(pixels: torch.Tensor) -> torch.Tensor:
        kind.made.append("features")
        return pixels.float().flatten(1)[:, :4]

    extractor, images = Extractor("id", 4, network, batch=10_000), DIGITS.test
    kind = Kind(
        lambda: cached_features(extractor, images, Cache(folder), CPU, lambda n: None).tolist()
    )
    return kind


def accuracies(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Kind:
    def train(*_: object) -> nn.Module:
        kind.made.append("accuracy")
        return nn.Identity()

    monkeypatch.setattr(reference, "train", train)
    monkeypatch.setattr(reference, "accuracy", lambda *_: 91.1111)
    of = reference.Reference(DIGITS.train, DIGITS.test, 10, CPU, Cache(folder))
    kind = Kind(lambda: of.accuracy(cnn._cnn_recipe(), 0, lambda n: None))
    return kind


def extractors(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Kind:
    def train_extractor(*_: object) -> cnn.FeatureCnn:
        kind.made.append("network")
        network = cnn.FeatureCnn(1, 10).eval()
        for parameter in network.parameters():
            nn.init.constant_(parameter, 0.1)
        return network

    monkeypatch.setattr(cnn, "train_extractor", train_extractor)

    def get() -> object:
        found = cnn.cnn_extractor("mine", 10, DIGITS.train, Cache(folder), CPU, Silent())
        with torch.no_grad():
            return found.network(DIGITS.test.pixels[:2]).tolist()

    kind = Kind(get)
    return kind


def public_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Kind:
    def get() -> object:
        model = nn.Linear(2, 2)
        recipe = {"network": "linear"}
        pretraining = Pretraining(recipe, Streams(0), "public", folder, Silent())
        if not pretraining.load(model):
            kind.made.append("weights")
            nn.init.ones_(model.weight)
            nn.init.ones_(model.bias)
            pretraining.save(model)
        return [tensor.tolist() for tensor in model.state_dict().values()]

    kind = Kind(get)
    return kind


def timings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Kind:
    def speed(*of: object) -> float:
        kind.made.append(str(of[3]))
        return {"folded": 9.0}.get(str(of[3]), 1.0)

    monkeypatch.setattr(selection, "_copies_per_s", speed)
    kind = Kind(
        lambda: choose(perceptron(), Regression(2), ImageSpec(1, 4, 4), "auto", Cache(folder))
    )
    return kind


KINDS = (features, accuracies, extractors, public_weights, timings)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Kind]:
    yield request.param(tmp_path, monkeypatch)


def test_damaged_results_of_every_kind_are_made_again(kind: Kind, tmp_path: Path) -> None:
    first = kind.get()
    each = len(kind.made)
    assert kind.get() == first and len(kind.made) == each, "it is not kept at all"
    (file,) = (file for file in tmp_path.rglob("*") if file.is_file())
    for number, damage in enumerate(DAMAGES.values(), 2):
        file.write_bytes(damage(file.read_bytes()))
        assert kind.get() == first
        assert len(kind.made) == number * each
    file.unlink()
    file.mkdir()  # neither readable nor replaceable
    assert kind.get() == first


def test_results_of_every_kind_are_made_where_nothing_can_be_kept(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, made = kind.get(), len(kind.made)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(files.Path, "mkdir", refuse)
    monkeypatch.setattr(files.Path, "replace", refuse)
    monkeypatch.setattr("dpbench.training.pretraining.locked", refuse)
    assert kind.get() == first and len(kind.made) == made, "what is only read is of no use"
    for file in [file for file in tmp_path.rglob("*") if file.is_file()]:
        file.unlink()
    assert kind.get() == first
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_numbers_of_another_kind_are_no_features(tmp_path: Path) -> None:
    images = Images(DIGITS.test.pixels[:3], DIGITS.test.labels[:3])
    extractor = Extractor("id", 2, lambda pixels: torch.zeros(len(pixels), 2), batch=10)
    said: list[str] = []
    cache = Cache(tmp_path, said.append)

    def get() -> None:
        assert cached_features(extractor, images, cache, CPU, lambda n: None).shape == (3, 2)

    get()
    (file,) = tmp_path.iterdir()
    for other in (np.zeros((3, 3), np.float32), np.zeros((3, 2)), np.array([{}])):
        cache.keep(file.name, lambda handle, other=other: np.save(handle, other))
        get()
    assert len(said) == 3
