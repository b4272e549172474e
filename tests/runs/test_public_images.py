"""Public images by name, and public training that is done once."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from dpbench.core.errors import UserError
from dpbench.core.images import ImageSpec
from dpbench.core.progress import Silent
from dpbench.core.streams import Streams
from dpbench.data.load import load
from dpbench.privacy.mechanisms import PrivateSetInfo
from dpbench.runs.public_images import check_public, converted, open_public, unread
from dpbench.training.pretraining import Pretraining

GREY = PrivateSetInfo("fashionmnist", ImageSpec(1, 28, 28), 10, 60_000)
COLOUR = PrivateSetInfo("cifar10", ImageSpec(3, 32, 32), 10, 50_000)
RECIPE = {"network": "linear", "steps": 3}


def pretrained(
    folder: Path, recipe: dict[str, object], kept: list[dict[str, object]], seed: int = 0
) -> nn.Module:
    """A model whose "training" sets its weights to the number of steps that were taken."""
    model = nn.Linear(1, 1, bias=False)
    pretraining = Pretraining(
        recipe, Streams(seed), "public training", folder, Silent(), kept=kept.append
    )
    if not pretraining.load(model):
        nn.init.zeros_(model.weight)
        for _ in pretraining.stage.steps(3, {"model": model}):
            with torch.no_grad():
                model.weight += 1
        pretraining.save(model)
    return model


def test_public_training_is_done_once_for_a_recipe(tmp_path: Path) -> None:
    kept: list[dict[str, object]] = []
    first, second = (pretrained(tmp_path, RECIPE, kept) for _ in range(2))
    assert first.weight.item() == second.weight.item() == 3
    assert [each["reused"] for each in kept] == [False, True]
    assert kept[0]["sha256"] == kept[1]["sha256"]


def test_another_recipe_is_trained_anew(tmp_path: Path) -> None:
    kept: list[dict[str, object]] = []
    for recipe in (RECIPE, RECIPE | {"steps": 4}):
        pretrained(tmp_path, recipe, kept)
    assert [each["reused"] for each in kept] == [False, False]
    assert kept[0]["recipe"] != kept[1]["recipe"]


def test_another_seed_is_trained_anew(tmp_path: Path) -> None:
    kept: list[dict[str, object]] = []
    for seed in (0, 1, 1):
        pretrained(tmp_path, RECIPE, kept, seed)
    assert [(each["seed"], each["reused"]) for each in kept] == [(0, False), (1, False), (1, True)]
    assert len({each["recipe"] for each in kept}) == 1


@pytest.mark.parametrize("name", ["dead-leaves", "digits"])
def test_another_seed_draws_other_public_images(name: str) -> None:
    zero, again, one = (open_public(name, GREY, None, seed, None, Silent()) for seed in (0, 0, 1))
    assert zero is not None and again is not None and one is not None
    first, same, other = (each.images(20, Silent()).pixels for each in (zero, again, one))
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert zero.identity == one.identity


def test_public_training_that_was_interrupted_goes_on_in_another_run(tmp_path: Path) -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    begun = Pretraining(RECIPE, Streams(0), "public training", tmp_path, Silent())
    assert not begun.load(model)
    with pytest.raises(KeyboardInterrupt):
        for step in begun.stage.steps(3, {"model": model}):
            with torch.no_grad():
                model.weight += 100
            if step == 1:
                signal.raise_signal(signal.SIGINT)
    begun._lock.close()  # as when its process ends
    assert pretrained(tmp_path, RECIPE, []).weight.item() == 201


def test_the_private_set_cannot_be_its_own_public_source() -> None:
    with pytest.raises(UserError, match="cannot be its own public source"):
        check_public("fashionmnist", "fashionmnist")
    check_public("mnist", "fashionmnist")
    check_public("none", "fashionmnist")


def test_the_private_images_under_another_name_are_refused() -> None:
    digits = PrivateSetInfo("scans", ImageSpec(1, 16, 16), 10, 1437)
    own = load("digits", None, Silent()).splits.train
    with pytest.raises(UserError, match="1,437 of its 1,437 are train images of the private set"):
        open_public("digits", digits, own, 0, None, Silent())


def test_an_unknown_public_source_is_named_with_the_nearest_one() -> None:
    with pytest.raises(UserError, match="Did you mean 'dead-leaves'"):
        check_public("dead-leafs", "fashionmnist")


@pytest.mark.parametrize("name", ["dead-leaves", "class-recipes", "digits"])
@pytest.mark.parametrize("info", [GREY, COLOUR], ids=lambda info: info.dataset)
def test_public_images_come_in_the_shape_of_the_private_ones(
    name: str, info: PrivateSetInfo
) -> None:
    source = open_public(name, info, None, 0, None, Silent())
    assert source is not None
    few, more = (source.images(count, Silent()) for count in (5, 70))
    assert more.spec == info.spec and len(more) == 70
    assert torch.equal(few.pixels, more.pixels[:5]) and torch.equal(few.labels, more.labels[:5])
    assert source.classes == (None if name == "dead-leaves" else 10)


def test_a_source_for_fits_without_public_training_has_no_images() -> None:
    source = unread("dead-leaves")
    assert source is not None and source.name == "dead-leaves"
    with pytest.raises(Exception, match="left out"):
        source.images(1, Silent())
    assert unread("none") is None


def test_conversion_keeps_plain_images_plain_and_greys_by_luma() -> None:
    red = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    red[:, 0] = 200
    grey = converted(red, ImageSpec(1, 28, 28))
    assert grey.shape == (2, 1, 28, 28) and grey.dtype == torch.uint8
    assert (grey == round(200 * 0.299)).all()
    again = converted(grey, ImageSpec(3, 32, 32))
    assert again.shape == (2, 3, 32, 32) and (again == grey[0, 0, 0, 0]).all()
    assert converted(red, ImageSpec(3, 32, 32)) is red
