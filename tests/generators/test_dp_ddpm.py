"""Public training of DP fine-tuned DDPM."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dpbench.api.method import RunContext
from dpbench.api.profiles import SMOKE
from dpbench.core.cache import Cache
from dpbench.core.errors import UserError
from dpbench.core.images import Images
from dpbench.core.progress import Progress, Silent
from dpbench.core.registry import load
from dpbench.core.streams import Streams
from dpbench.data.catalog import CATALOG
from dpbench.generators.diffusion.denoiser import STATE_OF_CLASSES, Denoiser
from dpbench.runs.hyperparameters import resolve
from dpbench.runs.request import private_set_info

INFO = private_set_info(CATALOG["digits"])


@dataclass(frozen=True)
class Greys:
    """Public images whose brightness is their label."""

    classes: int | None
    name: str = "greys"
    identity: str = "0" * 64

    def images(self, count: int, progress: Progress, classes: int | None = None) -> Images:
        labels = torch.arange(count) % 3
        pixels = (100 * labels)[:, None, None, None].expand(-1, *INFO.spec.shape)
        return Images(pixels.to(torch.uint8), labels)


def pretrained(public: Greys | None, folder: Path, *settings: str) -> Denoiser:
    few = ("public_images=32", "public_steps=2", "public_warmup_steps=1")
    assignments = ("public=greys", *few, *settings)
    method = resolve(load("method", "dp-ddpm"), "dp-ddpm", "smoke", "digits", 1.0, assignments)
    run = RunContext(
        profile=SMOKE,
        device=torch.device("cpu"),
        streams=Streams(1),
        progress=Silent(),
        folder=folder,
        public=public,
        cache=folder,
    )
    return method.method.pretrain(INFO, run)


def weights(denoiser: Denoiser) -> dict[str, Tensor]:
    return dict(denoiser.named_parameters())


def test_classes_are_embedded_anew_where_public_ones_are_others(tmp_path):
    other, unlabelled, same = (
        pretrained(Greys(classes=count), tmp_path, "centre_learning_rate=0.01")
        for count in (3, None, 10)
    )
    files = [
        Cache(tmp_path / "pretrained").find(
            file.name, lambda handle: torch.load(io.BytesIO(handle.read()), weights_only=True)
        )
        for file in (tmp_path / "pretrained").glob("*.pt")
    ]
    kept = files[0]
    assert kept.keys() == weights(same).keys()
    of_classes = [name for name in weights(same) if name.startswith(STATE_OF_CLASSES)]
    assert of_classes == ["network.embedding.label.weight", "centres.images.weight"]
    for name in of_classes:
        states = [weights(each)[name] for each in (other, unlabelled, same)]
        assert len({len(state) for state in states}) == 1
        assert torch.equal(states[0], states[1])  # the first weights of this run's seed
        assert not torch.equal(states[0], states[2])
    (learned,) = (each for each in files if len(each[of_classes[0]]) == 3)
    for name, weight in weights(other).items():
        assert name in of_classes or torch.equal(weight, learned[name])
    assert len(files) == 3  # what labels mean is a part of the recipe


@pytest.mark.parametrize("public", ["none", "cifar10", "dead-leaves"])
def test_the_laptop_preset_takes_any_public_images(public):
    kind = load("method", "dp-ddpm")
    found = resolve(kind, "dp-ddpm", "laptop", "fashionmnist", 1.0, (f"public={public}",))
    assert found.arguments["public"] == public


@pytest.mark.parametrize("classes", [3, None])
def test_the_number_of_classes_that_is_asked_of_programs_is_asked_of_no_other_images(
    tmp_path, classes
):
    """Labels up to 2 would have no place among the statistics of 2 classes."""
    asked = ("statistics_share=0.3", "public_classes=2")
    denoiser = pretrained(Greys(classes), tmp_path, *asked)
    assert len(denoiser.centres.means) == 1 + (classes or INFO.classes)


def test_labels_that_mean_nothing_are_drawn_anew(tmp_path):
    """Greys would otherwise teach the network what it must not know."""
    meant, unmeant = (
        weights(pretrained(Greys(classes), tmp_path / str(classes))) for classes in (10, None)
    )
    assert any(not torch.equal(meant[name], unmeant[name]) for name in meant)


@pytest.mark.parametrize(
    ("setting", "trained_again"),
    [("steps=7", False), ("clipping_norm=2", False), ("public_steps=5", True), ("patch=2", True)],
)
def test_public_training_is_shared_by_runs_that_differ_in_private_training_only(
    tmp_path, setting, trained_again
):
    pretrained(Greys(10), tmp_path)
    pretrained(Greys(10), tmp_path, setting)
    assert len(list((tmp_path / "pretrained").glob("*.pt"))) == 1 + trained_again


def test_without_its_public_images_it_says_how_to_go_on(tmp_path):
    with pytest.raises(UserError, match="--set public=none trains from scratch"):
        pretrained(None, tmp_path)


def test_each_seed_has_public_weights_of_its_own(dpbench, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    common = ("--method", "dp-ddpm", "--dataset", "digits", "--profile", "smoke")
    short = ("public_images=32", "public_steps=3", "public_warmup_steps=1", "steps=3")
    common = (*common, *(part for each in short for part in ("--set", each)))
    common = (*common, "--public", "salt-and-pepper")
    assert dpbench("pretrain", *common).code == 0
    records = []
    for seed in (0, 1):
        options = ("--seed", seed, "--evaluators", "memorization", "--runs-dir", tmp_path)
        ended = dpbench("run", *common, *options, "--json")
        assert ended.code == 0, ended.err
        records.append(json.loads(ended.out))
    first, second = (record["resolved"]["pretrained"] for record in records)
    assert (first["seed"], first["reused"]) == (0, True)
    assert (second["seed"], second["reused"]) == (1, False)
    assert first["recipe"] == second["recipe"] and first["sha256"] != second["sha256"]
    assert records[0]["spec"]["public"].startswith("salt-and-pepper@")
    refused = dpbench("run", *common[:-1], "digits", "--runs-dir", tmp_path)
    assert refused.code == 2 and "cannot be its own public source" in refused.err
